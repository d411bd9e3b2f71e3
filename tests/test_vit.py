"""Vision Transformers against a literal reference; their weights from safetensors and ONNX files."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.method import network as networks
from lgag_jax.settings.model import TRUNKS as CHOICES
from lgag_jax.trunks import onnx_weights, pretrained, vit, vit_positions, vit_weights
from lgag_jax.trunks.weight_files import read_tensors

SECOND = vit.Spec(8, 4, 2, patch=2, positions=3)
REGISTERS = SECOND._replace(registers=2)
THIRD = vit.Spec(
  16, 4, 2, patch=4, positions=0, registers=1, gated=True, key_bias=False, epsilon=1e-5
)
SPECS = {"second": SECOND, "registers": REGISTERS, "third": THIRD}
LINEAR = ("attention.attention.query", "attention.attention.key", "attention.attention.value")


def shapes_of(model, channels=3):
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))


def published(spec, seed=0):
  """Makes a state dict with Hugging Face's names for DINOv2."""
  rng, d = np.random.default_rng(seed), spec.width
  hidden = 4 * d
  shapes = {
    "embeddings.cls_token": (1, 1, d), "embeddings.mask_token": (1, d),
    "embeddings.patch_embeddings.projection.weight": (d, 3, spec.patch, spec.patch),
    "embeddings.patch_embeddings.projection.bias": (d,),
    "layernorm.weight": (d,), "layernorm.bias": (d,),
  }
  if spec.positions:
    shapes["embeddings.position_embeddings"] = (1, spec.positions**2 + 1, d)
  if spec.registers:
    shapes["embeddings.register_tokens"] = (1, spec.registers, d)
  mlp = {"weights_in": (2 * hidden, d), "weights_out": (d, hidden)} if spec.gated else {
    "fc1": (hidden, d), "fc2": (d, hidden)}
  for number in range(spec.depth):
    layers = dict.fromkeys((*LINEAR, "attention.output.dense"), (d, d))
    layers |= {f"mlp.{name}": shape for name, shape in mlp.items()}
    for name, shape in layers.items():
      shapes[f"encoder.layer.{number}.{name}.weight"] = shape
      shapes[f"encoder.layer.{number}.{name}.bias"] = shape[:1]
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
      shapes[f"encoder.layer.{number}.{name}"] = (d,)
    for name in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
      shapes[f"encoder.layer.{number}.{name}"] = (d,)
    if not spec.key_bias:
      del shapes[f"encoder.layer.{number}.attention.attention.key.bias"]
  return {name: np.float32(rng.normal(0, 0.5, shape)) for name, shape in shapes.items()}


def third_names(tensors, spec):
  """Gives a state dict the names of Hugging Face's DINOv3."""
  named = {}
  for name, tensor in tensors.items():
    name = name.removeprefix("encoder.").replace("layernorm.", "norm.").replace("projection.", "")
    name = name.replace("attention.output.dense", "attention.o_proj")
    for layer in ("query", "key", "value"):
      name = name.replace(f"attention.attention.{layer}", f"attention.{layer[0]}_proj")
    if "weights_in" in name:
      named[name.replace("weights_in", "gate_proj")] = tensor[: 4 * spec.width]
      named[name.replace("weights_in", "up_proj")] = tensor[4 * spec.width :]
    else:
      named[name.replace("weights_out", "down_proj")] = tensor
  return named


def literal_rotation(x, grid, spec):
  """Rotates x [tokens, head width], pair by pair, by the angles of DINOv3."""
  y, half = x.copy(), x.shape[1] // 2
  for token in range(spec.prefix, len(x)):
    row, column = divmod(token - spec.prefix, grid[1])
    for pair in range(half):
      axis, index = divmod(pair, half // 2)
      centre = ((row, column)[axis] + 0.5) / grid[axis] * 2 - 1
      angle = 2 * math.pi * centre / 100 ** (index * 4 / x.shape[1])
      a, b = x[token, pair], x[token, pair + half]
      y[token, pair] = a * math.cos(angle) - b * math.sin(angle)
      y[token, pair + half] = b * math.cos(angle) + a * math.sin(angle)
  return y


def literal_blocks(tensors, spec, tokens, grid):
  """Yields the tokens after each block, in double precision, straight from a state dict."""
  t = {name: np.float64(tensor) for name, tensor in tensors.items()}
  size = spec.width // spec.heads
  erf = np.vectorize(math.erf)

  def linear(name, x):
    return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

  def norm(name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + spec.epsilon)
    return x * t[f"{name}.weight"] + t[f"{name}.bias"]

  for number in range(spec.depth):
    layer = f"encoder.layer.{number}"
    y = norm(f"{layer}.norm1", tokens)
    query, key, value = (linear(f"{layer}.{name}", y) for name in LINEAR)
    heads = []
    for head in range(spec.heads):
      part = slice(head * size, (head + 1) * size)
      q, k = query[:, part], key[:, part]
      if not spec.positions:
        q, k = literal_rotation(q, grid, spec), literal_rotation(k, grid, spec)
      weights = np.exp(q @ k.T / math.sqrt(size))
      heads.append(weights / weights.sum(1, keepdims=True) @ value[:, part])
    y = linear(f"{layer}.attention.output.dense", np.concatenate(heads, 1))
    tokens = tokens + y * t[f"{layer}.layer_scale1.lambda1"]
    y = norm(f"{layer}.norm2", tokens)
    if spec.gated:
      gate, y = np.split(linear(f"{layer}.mlp.weights_in", y), 2, axis=1)
      y = linear(f"{layer}.mlp.weights_out", gate / (1 + np.exp(-gate)) * y)
    else:
      y = linear(f"{layer}.mlp.fc1", y)
      y = linear(f"{layer}.mlp.fc2", y * (1 + erf(y / math.sqrt(2))) / 2)
    tokens = tokens + y * t[f"{layer}.layer_scale2.lambda1"]
    yield tokens


def literal_tokens(tensors, spec, image):
  """Returns the tokens before the first block and the grid; positions are not interpolated."""
  p, kernel = spec.patch, np.float64(tensors["embeddings.patch_embeddings.projection.weight"])
  grid = image.shape[0] // p, image.shape[1] // p
  cells = [image[i * p : (i + 1) * p, j * p : (j + 1) * p] for i, j in np.ndindex(grid)]
  patches = np.stack([np.einsum("ijc,ocij->o", cell, kernel) for cell in cells])
  patches = patches + tensors["embeddings.patch_embeddings.projection.bias"]
  token, registers = tensors["embeddings.cls_token"][0], np.zeros((0, spec.width))
  if spec.positions:
    positions = tensors["embeddings.position_embeddings"][0]
    token, patches = token + positions[:1], patches + positions[1:]
  if spec.registers:
    registers = tensors["embeddings.register_tokens"][0]
  return np.concatenate([token, registers, patches]), grid


@pytest.fixture
def tiny(monkeypatch):
  """Registers tiny models as trunks that weights can be loaded into."""
  for name, spec in SPECS.items():
    monkeypatch.setitem(vit.VARIANTS, name, vit.variant(name, spec))
    naming = (vit_weights.published_name, vit_weights.UNUSED)
    monkeypatch.setitem(pretrained._NAMING, name, naming)


def load(name, path, channels=3):
  model = vit.VARIANTS[name](output_stride=16)
  return pretrained.load_trunk(name, str(path), shapes_of(model, channels))


@pytest.mark.parametrize("name", SPECS)
def test_whole_trunk_matches_literal_reference_from_a_file(name, tiny, tmp_path):
  spec, tensors = SPECS[name], published(SPECS[name])
  names = third_names(tensors, spec) if name == "third" else tensors
  safetensors.numpy.save_file(names, tmp_path / "model.safetensors")
  variables = load(name, tmp_path / "model.safetensors")
  # At 3 x 3 patches, from an image that needs no resizing.
  image = np.random.default_rng(1).normal(size=(3 * spec.patch, 3 * spec.patch, 3))
  tokens, grid = literal_tokens(tensors, spec, image)
  stem = vit.Stem(spec, spec.patch, jnp.float32).apply(
    {"params": variables["params"]["stem"]}, jnp.float32(image[None])
  )
  patches = tokens[spec.prefix :].reshape(1, 3, 3, -1)
  np.testing.assert_allclose(stem, patches, rtol=1e-5, atol=1e-5)
  outputs = jax.jit(lambda v, x: vit.VARIANTS[name]().apply(v, x, first=1))(variables, stem)
  for got, expected in zip(outputs, literal_blocks(tensors, spec, tokens, grid), strict=True):
    expected = expected[spec.prefix :].reshape(1, 3, 3, -1)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("name", "count"),  # The published count.
  [("dinov2_vits14", 22_056_576), ("dinov2_vits14_reg", 22_058_112), ("dinov2_vitb14", 86_580_480),
   ("dinov2_vitl14", 304_368_640)],
)
def test_parameter_counts(name, count):
  model = vit.VARIANTS[name]()
  params = shapes_of(model)["params"]
  assert set(params) == {"stem", "stage1", "stage2", "stage3", "stage4"}
  # The trunk lacks the mask token and the last norm, and adds the class token's position to the token.
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) + 4 * model.WIDTHS[0] == count


def test_settings_offer_every_trunk():
  assert set(CHOICES) == set(pretrained.TRUNKS)


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg", "dinov3_vits16plus"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_taps_share_the_grid_of_the_output_stride(name, stride):
  model = vit.VARIANTS[name](output_stride=stride)
  for height, width in ((128, 192), (100, 128)):
    outputs = jax.eval_shape(model.apply, shapes_of(model, 5), jnp.zeros((2, height, width, 5)))
    grid = math.ceil(height / stride), math.ceil(width / stride)
    assert [y.shape for y in outputs] == [(2, *grid, 384)] * 5


@pytest.mark.parametrize(
  ("name", "split"),
  [("second", 3), ("registers", 1), ("registers", 2), ("registers", 4), ("third", 3)],
)
def test_stages_compose_to_the_whole(name, split, tiny):
  model = vit.VARIANTS[name](output_stride=8)
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  image = jax.random.normal(jax.random.key(1), (2, 32, 24, 3))
  whole = jax.jit(model.apply)(variables, image)
  head = jax.jit(lambda v, x: model.apply(v, x, last=split - 1))(variables, image)
  later = {f"stage{number}" for number in range(split, 5)}
  params = {key: value for key, value in variables["params"].items() if key in later}
  tail = jax.jit(lambda v, x: model.apply(v, x, first=split))({"params": params}, head[-1])
  assert len(head) + len(tail) == len(whole) == 5
  for got, expected in zip((*head, *tail), whole, strict=True):
    np.testing.assert_allclose(got[..., : expected.shape[3]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_one_program_serves_any_number_of_images(name, tiny):
  model = vit.VARIANTS[name](output_stride=16)
  (batch,) = jax.export.symbolic_shape("batch")
  image = jax.ShapeDtypeStruct((batch, 32, 32, 3), np.float32)
  halves = lambda v, x: model.apply(v, model.apply(v, x, last=2)[-1], first=3)
  program = jax.export.export(jax.jit(halves))(shapes_of(model), image)
  assert [y.shape[0] for y in program.out_avals] == [batch] * 2


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_network_trains_from_any_stage(first):
  config = configs.Config(
    data=configs.DataConfig(augment="image"),
    model=configs.ModelConfig(trunk="dinov2_vits14", first_trainable_stage=first),
  )
  network = networks.build(config)
  trunk = jax.eval_shape(lambda key: network.init_trunk(key, 3), jax.random.key(0))

  def taps(params, image):
    return network.taps(params, {}, network.frozen(params, {}, image))

  shapes = jax.eval_shape(taps, {"trunk": trunk["params"]}, jnp.zeros((2, 64, 64, 3)))
  assert [tap.shape for tap in shapes] == [(2, 4, 4, 384)] * 4


def test_tap_blocks_choose_blocks_and_cut_the_rest(tiny):
  kind = vit.VARIANTS["second"]
  image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
  variables = jax.jit(kind().init)(jax.random.key(0), image)
  whole = jax.jit(kind().apply)(variables, image)
  cut = kind(tap_blocks=(1, 2, 2, 3))
  names = {stage: set(value) for stage, value in shapes_of(cut)["params"].items()}
  blocks = {f"block{n}": variables["params"][f"stage{n + 1}"][f"block{n}"] for n in range(3)}
  assert names == {
    "stem": {"kernel", "bias", "positions"}, "stage1": {"prefix", "block0"}, "stage2": {"block1"},
    "stage4": {"block2"},
  }
  blocks["prefix"] = variables["params"]["stage1"]["prefix"]
  params = {s: {n: blocks[n] for n in names[s]} for s in names if s != "stem"}
  params["stem"] = variables["params"]["stem"]
  got = jax.jit(cut.apply)({"params": params}, image)
  for index, expected in enumerate((whole[0], whole[1], whole[2], whole[2], whole[3])):
    np.testing.assert_allclose(got[index], expected, rtol=1e-5, atol=1e-5)


def test_bad_choices_are_refused(tiny):
  kind = vit.VARIANTS["registers"]
  with pytest.raises(ValueError, match="output_stride is 4; choose 8, 14, 16 or 32"):
    kind(output_stride=4)
  for taps in ((1, 2, 3), (2, 1, 3, 4), (0, 1, 2, 3), (1, 2, 3, 5)):
    with pytest.raises(ValueError, match="name four blocks in order, from 1 to 4"):
      kind(tap_blocks=taps)
  for first, last in ((-1, 4), (0, 5), (3, 2)):
    with pytest.raises(ValueError, match=f"stages {first} to {last}"):
      kind().apply({}, jnp.zeros((1, 4, 4, 3)), first=first, last=last)
  with pytest.raises(ValueError, match=r"has 8 channels; continue from .* which has 32"):
    kind().apply({}, jnp.zeros((1, 4, 4, 8)), first=2)


def test_half_precision_reaches_the_output_but_not_the_parameters(tiny):
  for name in SPECS:
    model = vit.VARIANTS[name](dtype=jnp.bfloat16)
    shapes = shapes_of(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    outputs = jax.eval_shape(model.apply, shapes, jnp.zeros((1, 64, 64, 3)))
    assert {y.dtype for y in outputs} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("grid", [(16, 16), (5, 9), (37, 12), (60, 41)])
def test_positions_are_interpolated_as_pytorch_does(grid):
  positions = np.random.default_rng(0).normal(size=(37, 37, 2)).astype(np.float32)
  node = helper.make_node(
    "Resize", ["x", "", "", "sizes"], ["y"], mode="cubic", cubic_coeff_a=-0.75,
    coordinate_transformation_mode="half_pixel",
  )
  x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
  sizes = numpy_helper.from_array(np.array([1, 2, *grid]), "sizes")
  graph = helper.make_graph([node], "resize", [x], [y], [sizes])
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
  session = onnxruntime.InferenceSession(model.SerializeToString())
  (expected,) = session.run(None, {"x": positions.transpose(2, 0, 1)[None]})
  got = vit_positions.resize_positions(jnp.array(positions), grid, antialias=False)
  np.testing.assert_allclose(got, expected[0].transpose(1, 2, 0), atol=1e-4)
  # Pillow antialiases, as PyTorch does when told to.
  bands = [Image.fromarray(band).resize(grid[::-1], Image.Resampling.BICUBIC)
           for band in positions.transpose(2, 0, 1)]
  got = vit_positions.resize_positions(jnp.array(positions), grid, antialias=True)
  np.testing.assert_allclose(got, np.stack(bands, axis=-1), atol=1e-3)


def test_positions_of_the_trained_grid_stay_as_they_are():
  positions = jnp.array(np.random.default_rng(0).normal(size=(4, 4, 3)))
  for antialias in (False, True):
    got = vit_positions.resize_positions(positions, (4, 4), antialias=antialias)
    np.testing.assert_array_equal(got, positions)
  np.testing.assert_allclose(vit_positions.cubic_weights(4, 4), np.eye(4), atol=1e-7)


def onnx_model(tensors, *, as_floats=False, prefix="backbone."):
  """Writes a state dict as torch exports it: kernels without names, positions in two parts."""
  nodes, stored = [], {}
  for name, tensor in tensors.items():
    if tensor.ndim == 2 and name.endswith(".weight"):
      index, bias = len(nodes), prefix + name.removesuffix("weight") + "bias"
      stored[f"onnx::MatMul_{index}"] = tensor.T
      product = f"/{name}/MatMul_output_0"
      inputs = [bias, product] if index % 4 else [product, bias]
      nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{index}"], [product]))
      nodes.append(helper.make_node("Add", inputs, [f"/{name}/Add_output_0"]))
    elif name == "embeddings.position_embeddings":
      stored["onnx::Concat_1"], stored["onnx::Reshape_2"] = tensor[:, :1], tensor[:, 1:]
    elif name != "embeddings.mask_token":
      stored[prefix + name] = tensor
  stored["decoder.bn1.weight"] = np.ones(3, np.float32)
  stored["shape"] = np.array([1, 2])
  initializers = [
    helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
    if as_floats and array.dtype == np.float32 else numpy_helper.from_array(array.copy(), name)
    for name, array in stored.items()
  ]
  return helper.make_model(helper.make_graph(nodes, "vit", [], [], initializers))


@pytest.mark.parametrize("as_floats", [False, True])
def test_onnx_file_gives_the_variables_of_the_state_dict(as_floats, tiny, tmp_path):
  tensors = published(SECOND)
  safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
  onnx.save(onnx_model(tensors, as_floats=as_floats), tmp_path / "model.onnx")
  expected, got = (load("second", tmp_path / f"model.{end}", 5) for end in ("safetensors", "onnx"))
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  assert got["params"]["stem"]["kernel"].shape == (2, 2, 5, 8)


def field(number, content):
  """Encodes one protobuf field of bytes or a number."""
  if isinstance(content, int):
    return varint(number << 3) + varint(content)
  return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
  data = b""
  while value > 127:
    data, value = data + bytes([value & 127 | 128]), value >> 7
  return data + bytes([value])


def tensor_field(dims, raw=bytes(8), **more):
  content = b"".join(field(1, n) for n in dims) + field(2, more.pop("kind", 1)) + field(8, b"a.bias")
  return field(5, content + field(9, raw) + more.pop("last", b""))


HOSTILE = {
  "empty": (b"", "holds no floating-point tensor"),
  "text": (b"not a model at all", "a field claims|wire type|within a number"),
  "endless number": (b"\xff" * 1000, "a number of more than ten bytes"),
  "claims more": (varint(7 << 3 | 2) + varint(2**62) + b"x", "claims 4611686018427387904 bytes"),
  "group": (b"\x3b\x3c", "unknown wire type 3"),
  "number for graph": (field(7, 3), "a number where bytes are expected"),
  "huge axis": (field(7, tensor_field([2**62])), "'a.bias' has the shape .* but 8 bytes"),
  "huge product": (field(7, tensor_field([2**40] * 8)), "'a.bias' has the shape"),
  "negative axis": (field(7, tensor_field([2**64 - 1, 2**64 - 2])), "'a.bias' has the shape"),
  "many axes": (field(7, tensor_field([1] * 9)), "more than 8 axes"),
  "packed axes": (field(7, field(5, field(1, b"\1" * 1000) + field(2, 1))), "more than 8 axes"),
  "empty with huge axis": (field(7, tensor_field([0, 2**63], b"")), "Maximum allowed dimension"),
  "elsewhere": (field(7, tensor_field([2], last=field(14, 1))), "lies in another file"),
  "twice": (field(7, tensor_field([2]) * 2), "two of its tensors are called 'a.bias'"),
  "no bytes": (field(7, tensor_field([2], b"", kind=10)), "but 0 bytes"),
  "name": (field(7, field(1, field(1, b"x" * 2000))), "a name of 2000 bytes"),
  "not text": (field(7, field(1, field(1, b"\xff\xfe"))), "UnicodeDecodeError"),
  "other types": (field(7, tensor_field([1], kind=7)), "holds no floating-point tensor"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_onnx_files_are_refused_by_name(case, tmp_path):
  data, message = HOSTILE[case]
  path = tmp_path / "mine.onnx"
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f"(?s)mine.onnx cannot be read as weights.*({message})"):
    read_tensors(str(path))


def test_two_kernels_of_one_bias_are_refused(tmp_path):
  model = onnx_model({"a.weight": np.eye(2, dtype=np.float32), "a.bias": np.ones(2, np.float32)})
  model.graph.initializer.append(numpy_helper.from_array(np.eye(2), "backbone.a.weight"))
  onnx.save(model, tmp_path / "mine.onnx")
  with pytest.raises(ValueError, match=r"mine\.onnx .* is not the only kernel of 'backbone\.a\.bias'"):
    read_tensors(str(tmp_path / "mine.onnx"))


def test_fields_of_an_onnx_file_are_bounded(tmp_path, monkeypatch):
  path = tmp_path / "mine.onnx"
  path.write_bytes(field(7, field(1, b"") * 100))
  monkeypatch.setattr(onnx_weights, "_MAX_FIELDS", 50)
  with pytest.raises(ValueError, match=r"mine\.onnx .* more than 50 fields"):
    read_tensors(str(path))


def test_damaged_onnx_files_never_fail_otherwise(tmp_path):
  path, rng = tmp_path / "mine.onnx", np.random.default_rng(0)
  tensors = {"a.weight": np.eye(2, dtype=np.float32), "a.bias": np.ones(2, np.float32)}
  data = onnx_model(tensors).SerializeToString()
  refused = read = 0
  for trial in range(600):
    damaged = bytearray(data)
    if trial < len(data):
      damaged = damaged[:trial]  # Truncated.
    else:
      damaged[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      read_tensors(str(path))
    except ValueError as error:
      refused += "mine.onnx cannot be read as weights" in str(error)
    else:
      read += 1
  assert refused > 100 and refused + read == 600


def change(tensors, name, tensor):
  return {**tensors, name: np.float32(tensor)}


@pytest.mark.parametrize(
  ("name", "edit", "message"),
  [("second", lambda t: {"x": t["layernorm.bias"]}, "0 tensors are called embeddings.cls_token"),
   ("second", lambda t: t | {f"b.{n}": v for n, v in t.items()}, "2 tensors are called"),
   ("second", lambda t: change(t, "embeddings.cls_token", np.ones(8)), "has shape .8,., not"),
   ("second", lambda t: change(t, "embeddings.position_embeddings", np.ones((1, 9, 8))), "reshape"),
   ("second", lambda t: change(t, "encoder.layer.0.extra.bias", np.ones(8)), "extra.bias is unknown"),
   ("second", lambda t: published(REGISTERS), "register_tokens has shape .1, 3, 8., not .1, 1, 8."),
   ("registers", lambda t: published(SECOND), "register_tokens has shape .1, 1, 8., not .1, 3, 8."),
   ("third", lambda t: third_names({n: v for n, v in t.items() if "0.mlp.weights_out" not in n}, THIRD),
    "mlp.down_proj.(weight|bias) is missing")],
)
def test_other_state_dicts_are_refused(name, edit, message, tiny, tmp_path):
  safetensors.numpy.save_file(edit(published(SPECS[name])), tmp_path / "mine.safetensors")
  with pytest.raises(ValueError, match=rf"mine\.safetensors is not the published .*{message}"):
    load(name, tmp_path / "mine.safetensors")


def test_the_packaged_model_agrees_with_onnxruntime_after_every_block():
  trunk = "dinov2_vits14"
  try:
    path = pretrained.packaged_weights(trunk)
  except ValueError as error:
    pytest.skip(str(error))
  model = onnx.load(path)
  del model.graph.output[:]
  names = [f"/backbone/encoder/layer.{number}/Add_1_output_0" for number in range(12)]
  model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
  image = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
  session = onnxruntime.InferenceSession(model.SerializeToString())
  expected = session.run(None, {"input_image": image.transpose(0, 3, 1, 2)})
  kind = vit.VARIANTS[trunk]
  params = pretrained.load_trunk(trunk, path, shapes_of(kind()))["params"]
  blocks = {name: leaf for stage in params.values() for name, leaf in stage.items()}
  for start in (1, 5, 9):
    # The graph's image has one patch per 14 pixels.
    cut = kind(output_stride=14, tap_blocks=tuple(range(start, start + 4)))
    shapes = shapes_of(cut)["params"]
    cut_params = {stage: {name: blocks[name] for name in shapes[stage]} for stage in shapes}
    outputs = jax.jit(cut.apply)({"params": cut_params}, image)[1:]
    for got, block in zip(outputs, expected[start - 1 :], strict=False):
      np.testing.assert_allclose(got, block[:, 1:].reshape(got.shape), atol=1e-3)
