"""The published data sets that data/ has builders for, and how to get them."""

import dataclasses
import textwrap

from lgag_jax.options.fields import flag

PLACEHOLDER = "FOLDER"  # Stands for the user's own folder in commands and layouts.


@dataclasses.dataclass(frozen=True)
class Options:
  """The flags of --mode=datasets."""

  name: str = flag("", "the data set to show in detail.")


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set as published; its builder is data/<name>, its config configs/<name>.py."""

  name: str
  title: str
  sensor: str  # With the ground resolution.
  size: str
  channels: str
  split: str  # How training and validation are separated.
  licence: str
  page: str
  layout: str  # Files below the folder of the data set.
  variants: tuple[tuple[str, str], ...] = ()  # Flags of a variant, and its description.
  record: int = 0  # Zenodo record to download from; 0: download by hand.
  suffixes: tuple[str, ...] = ()  # Name endings of the required files in the record.
  max_gib: int = 0  # Upper bound for the size of these files.

  @property
  def command(self) -> str:
    """The command that trains on the data set."""
    original = "" if self.record else f" --config.data.original={PLACEHOLDER}"
    return (
      f"python -m lgag_jax.main --config=configs/{self.name}.py{original} --workdir=runs/{self.name}"
    )

  @property
  def preparation(self) -> str:
    """What the user has to do before training."""
    if self.record:
      return (
        "Nothing: training downloads it from Zenodo, unpacks it and builds it once, in runs/tfds. If "
        f"you have a copy, add --config.data.original={PLACEHOLDER}: the folder that holds the files "
        "listed below, an archive of it, or the URL of the archive."
      )
    return (
      f"Download it by hand from its page. {PLACEHOLDER} is the folder that holds the files listed "
      "below, an archive of it (.zip, .tar, .tar.gz), or the URL of the archive on a server of yours. "
      "Training builds it once, in runs/tfds."
    )


TABLE = {data_set.name: data_set for data_set in (
  DataSet(
    name="bijie",
    title="Bijie landslides (Ji et al. 2020)",
    sensor="TripleSat, 0.8 m, with a digital elevation model",
    size="770 images with a landslide, 2003 without, of varying sizes",
    channels="3, or 4 with elevation",
    split="the last fifth of each class by name, since images with similar names may be neighbours",
    licence="none stated; see its page",
    page="http://gpcv.whu.edu.cn/data/Bijie_pages.html",
    layout="""
      landslide/image/*.png      landslide/mask/*.png      landslide/dem/*.png
      non-landslide/image/*.png  non-landslide/dem/*.png
      (images, masks and elevations have the same names; dem/ only for the variant rgb_dem)
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
    split="the last fifth of the sites by name",
    licence="non-commercial research only",
    page="https://github.com/zxk688/GVLM",
    layout="""
      <site>/im1.png  the image before (only for the variant bitemporal)
      <site>/im2.png  the image after
      <site>/ref.png  landslides
      (the names img1 and img2 are accepted too)
    """,
    variants=((
      "--config.data.builder=data/gvlm:bitemporal --config.data.channels=6 "
      "--config.data.normalise=train",
      "both images: after, then before",
    ),),
  ),
  DataSet(
    name="landslide4sense",
    title="Landslide4Sense (Ghorbanzadeh et al. 2022)",
    sensor="Sentinel-2, with slope and elevation from ALOS PALSAR, 10 m",
    size="3799 patches of 128 pixels for training; 245 and 800 more without public masks",
    channels="14: B1 to B12, slope, elevation",
    split="the published folders if they have masks, otherwise the last fifth of TrainData by number",
    licence="CC BY 4.0; see its page",
    page="https://zenodo.org/records/10463239",
    layout="""
      TrainData/img/image_<number>.h5  "img", [128, 128, 14]
      TrainData/mask/mask_<number>.h5  "mask", [128, 128]
      ValidData/, TestData/            the same; used if there is a mask/
      (the downloaded TrainData.zip, ... are accepted too)
    """,
    variants=((
      "--config.data.builder=data/landslide4sense:patches_128",
      "whole patches; most contain a landslide, so image labels say little",
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
    split="the last fifth of the regions by name, whatever the sensor",
    licence="CC BY-NC 4.0; see its page",
    page="https://zenodo.org/records/10294997",
    layout="""
      <region>/img/*.tif   512 x 512
      <region>/mask/*.tif  the same names; 1 landslide, 0 no landslide
      (<region>/label/ is not read; a name such as "Jiuzhai valley (UAV-0.2m)" means the region
      "Jiuzhai valley"; the downloaded <region>.zip is accepted too)
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
      valX.npy, valY.npy; testX.npy, testY.npy are optional
    """,
    variants=((
      "--config.data.builder=data/hr_gldd:patches_128",
      "whole patches; most contain a landslide, so image labels say little",
    ),),
    record=7189381,
    suffixes=(".npy",),
    max_gib=8,
  ),
)}


def find(name: str) -> DataSet:
  """Returns a data set; raises ValueError if the name is unknown."""
  if name not in TABLE:
    close = [known for known in TABLE if name and name.replace("_", "") in known.replace("_", "")]
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"--name={name} is unknown: choose one of {', '.join(TABLE)}.{hint}")
  return TABLE[name]


def layout(name: str) -> str:
  """Returns the lines that show what a data set's folder must hold."""
  return textwrap.indent(textwrap.dedent(find(name).layout).strip("\n"), "    ")


def instructions(name: str) -> str:
  """Returns how to get a data set: its page, what to do, and the expected layout."""
  data_set = find(name)
  return f"{data_set.title}: {data_set.page}\n{data_set.preparation}\n{layout(name)}"


def text(name: str = "") -> str:
  """Returns the output of --mode=datasets: one data set in detail, or a summary of all."""
  if name:
    return _details(find(name))
  lines = ["Published data sets with a builder and a config:", ""]
  for data_set in TABLE.values():
    download = "downloaded automatically" if data_set.record else "to be downloaded by hand"
    lines += [
      f"{data_set.name}: {data_set.title}", f"    {data_set.sensor}; {data_set.size}",
      f"    channels: {data_set.channels}; licence: {data_set.licence}",
      f"    {data_set.page}, {download}", f"    {data_set.command}", "",
    ]
  return "\n".join((
    *lines, "--mode=datasets --name=bijie shows one in detail: its layout, preparation and variants.",
    "For your own images see configs/image_folder.py and configs/scene.py.",
  ))


def _details(data_set: DataSet) -> str:
  lines = [data_set.title, ""]
  for name in ("sensor", "size", "channels", "split", "licence", "page"):
    lines.append(f"  {name:9}{getattr(data_set, name)}")
  lines += ["", *textwrap.wrap(f"Preparation: {data_set.preparation}", 100), ""]
  lines += [layout(data_set.name), "", "Train:", f"    {data_set.command}"]
  for flags, description in data_set.variants:
    lines += ["", f"Variant: {description}:", f"    {flags}"]
  return "\n".join(lines)
