"""The field's published data sets that data/ has builders for: what they are, what is to be done."""

import dataclasses
import textwrap

from lgag_jax.options.fields import flag

ROOT = "FOLDER"  # What stands for the user's own place in commands and layouts.


@dataclasses.dataclass(frozen=True)
class Choice:
  """What --mode=datasets is told."""

  name: str = flag("", "the data set to show in full.")


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set as published; its builder is data/<name>, its config configs/<name>.py."""

  name: str
  title: str
  sensor: str  # And ground resolution.
  size: str
  channels: str
  split: str  # What training and validation are told apart by.
  licence: str
  page: str
  layout: str  # Below the folder that holds it.
  variants: tuple[tuple[str, str], ...] = ()  # Further flags, and what they are for.
  record: int = 0  # Of Zenodo: downloaded when nothing is at hand.
  suffixes: tuple[str, ...] = ()  # Of the record's files that are needed.
  max_gib: int = 0  # More than the record's files can take.

  @property
  def command(self) -> str:
    """The command that trains on it."""
    where = "" if self.record else f" --config.data.original={ROOT}"
    return (
      f"python -m lgag_jax.main --config=configs/{self.name}.py{where} --workdir=runs/{self.name}"
    )

  @property
  def needs(self) -> str:
    """What has to be done first, and where things go."""
    if self.record:
      return (
        "Nothing: it is downloaded from Zenodo, unpacked and built once, into runs/tfds. With a copy "
        f"at hand add --config.data.original={ROOT}: the folder that holds what is listed below, an "
        "archive of it or the archive's address."
      )
    return (
      f"Download it by hand from its page. {ROOT} is the folder that holds what is listed below, or "
      "an archive of it (.zip, .tar, .tar.gz), or the archive's address on a server of yours. It is "
      "built once, into runs/tfds."
    )


TABLE = {data_set.name: data_set for data_set in (
  DataSet(
    name="bijie",
    title="Bijie landslides (Ji et al. 2020)",
    sensor="TripleSat, 0.8 m, with a digital elevation model",
    size="770 images with a landslide, 2003 without, of varying sizes",
    channels="3, or 4 with elevation",
    split="the last fifth of each kind by name, as neighbours in name may be neighbours in space",
    licence="see its page; none is stated there",
    page="http://gpcv.whu.edu.cn/data/Bijie_pages.html",
    layout="""
      landslide/image/*.png      landslide/mask/*.png      landslide/dem/*.png
      non-landslide/image/*.png  non-landslide/dem/*.png
      (images, masks and elevations of the same names; dem/ only for the variant rgb_dem)
    """,
    variants=((
      "--config.data.builder=data/bijie:rgb_dem --config.data.channels=4 --config.data.normalise=train",
      "elevation as a fourth channel, float32",
    ),),
  ),
  DataSet(
    name="gvlm",
    title="GVLM, Global Very-High-Resolution Landslide Mapping (Zhang et al. 2023)",
    sensor="Google Earth, 0.59 m, before and after",
    size="17 sites, 164 km2, in tiles of 256 pixels",
    channels="3, or 6 with the image before",
    split="sites: the last fifth by name",
    licence="research only, not commercial",
    page="https://github.com/zxk688/GVLM",
    layout="""
      <site>/im1.png  the image before (only for the variant bitemporal)
      <site>/im2.png  the image after
      <site>/ref.png  landslides
      (img1 and img2 will do as names)
    """,
    variants=((
      "--config.data.builder=data/gvlm:bitemporal --config.data.channels=6 "
      "--config.data.normalise=train",
      "both images, the one after first",
    ),),
  ),
  DataSet(
    name="landslide4sense",
    title="Landslide4Sense (Ghorbanzadeh et al. 2022)",
    sensor="Sentinel-2, slope and elevation of ALOS PALSAR, 10 m",
    size="3799 patches of 128 pixels for training, 245 and 800 more without public masks",
    channels="14: B1 to B12, slope, elevation",
    split="the published folders where they have masks, else the last fifth of TrainData by number",
    licence="CC BY 4.0; see its page",
    page="https://zenodo.org/records/10463239",
    layout="""
      TrainData/img/image_<number>.h5  "img", [128, 128, 14]
      TrainData/mask/mask_<number>.h5  "mask", [128, 128]
      ValidData/, TestData/            the same; used where there is a mask/
      (TrainData.zip, ... as downloaded will do)
    """,
    variants=((
      "--config.data.builder=data/landslide4sense:patches_128",
      "whole patches; most hold a landslide, so that labels of images say little",
    ),),
    record=10463239,
    suffixes=("data.zip",),
    max_gib=16,
  ),
  DataSet(
    name="cas_landslide",
    title="CAS Landslide Dataset (Xu et al. 2024)",
    sensor="satellites and drones, 0.2 to 5 m",
    size="20865 patches of 512 pixels from nine regions, in tiles of 256",
    channels="3",
    split="regions, whatever the sensor: the last fifth by name",
    licence="CC BY-NC 4.0; see its page",
    page="https://zenodo.org/records/10294997",
    layout="""
      <region>/img/*.tif   512 x 512
      <region>/mask/*.tif  the same names; 1 landslide, 0 not
      (<region>/label/ is not read; a name such as "Jiuzhai valley (UAV-0.2m)" is the region
      "Jiuzhai valley"; <region>.zip as downloaded will do)
    """,
    variants=((
      "--config.data.builder=data/cas_landslide:patches_512 --config.data.image_size=512",
      "whole patches, for large landslides",
    ),),
    record=10294997,
    suffixes=(".zip",),
    max_gib=128,
  ),
  DataSet(
    name="hr_gldd",
    title="HR-GLDD, High-Resolution Global Landslide Detector Database (Meena et al. 2023)",
    sensor="PlanetScope, 3 m",
    size="patches of 128 pixels from ten regions, in tiles of 64",
    channels="4: red, green, blue, near infrared",
    split="the published one",
    licence="CC BY 4.0; see its page",
    page="https://zenodo.org/records/7189381",
    layout="""
      trainX.npy  [n, 128, 128, 4]    trainY.npy  [n, 128, 128, 1]
      valX.npy, valY.npy, and testX.npy, testY.npy where there are any
    """,
    variants=((
      "--config.data.builder=data/hr_gldd:patches_128",
      "whole patches; most hold a landslide, so that labels of images say little",
    ),),
    record=7189381,
    suffixes=(".npy",),
    max_gib=8,
  ),
)}


def find(name: str) -> DataSet:
  """Returns a data set; raises ValueError for a name that there is none of."""
  if name not in TABLE:
    close = [known for known in TABLE if name and name.replace("_", "") in known.replace("_", "")]
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"--name={name}: there are {', '.join(TABLE)}.{hint}")
  return TABLE[name]


def layout(name: str) -> str:
  """Returns the lines that show what a data set's folder must hold."""
  return textwrap.indent(textwrap.dedent(find(name).layout).strip("\n"), "    ")


def instructions(name: str) -> str:
  """Returns what a builder says to whoever has to bring the data."""
  found = find(name)
  return f"{found.title}: {found.page}\n{found.needs}\n{layout(name)}"


def text(name: str = "") -> str:
  """Returns what --mode=datasets prints: one data set in full, or all in short."""
  if name:
    return _full(find(name))
  lines = ["Data sets of the field, each with a builder and a config of its own:", ""]
  for found in TABLE.values():
    how = "downloaded when needed" if found.record else "to be downloaded by hand"
    lines += [
      f"{found.name}: {found.title}", f"    {found.sensor}; {found.size}",
      f"    channels: {found.channels}; licence: {found.licence}", f"    {found.page}, {how}",
      f"    {found.command}", "",
    ]
  return "\n".join((
    *lines, "--mode=datasets --name=bijie shows one in full: what to put where, and its variants.",
    "For your own images see configs/image_folder.py and configs/scene.py.",
  ))


def _full(found: DataSet) -> str:
  rows = {
    "sensor": found.sensor, "size": found.size, "channels": found.channels, "split": found.split,
    "licence": found.licence, "page": found.page,
  }
  lines = [found.title, "", *(f"  {name:9}{value}" for name, value in rows.items()), ""]
  lines += [*textwrap.wrap(f"Needs: {found.needs}", 100), "", layout(found.name), ""]
  lines += ["Train:", f"    {found.command}"]
  for flags, use in found.variants:
    lines += ["", f"Variant: {use}:", f"    {flags}"]
  return "\n".join(lines)
