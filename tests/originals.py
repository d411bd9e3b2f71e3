"""Writes small data sets in the published layouts, and returns their contents."""

import zipfile

import h5py
import numpy as np
import rasterio
from PIL import Image


def _image(random, mask, channels=3):
  """Draws an image u8[H, W, channels] on which landslides are bright."""
  image = random.integers(40, 90, (*mask.shape, channels), dtype=np.uint8)
  image[mask > 0] += 150
  return image


def _mask(random, shape, *, landslide):
  """Draws a mask whose landslide, if any, lies in the first quarter of the image."""
  mask = np.zeros(shape, np.uint8)
  if landslide:
    top, left = random.integers(2, 12, 2)
    mask[top : top + 14, left : left + 16] = 1
  return mask


def _save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def bijie(root, count=10):
  """Returns {id: (image, elevation, mask)}."""
  random, contents = np.random.default_rng(1), {}
  for kind in ("landslide", "non-landslide"):
    for i in range(count):
      shape = (48 + 4 * (i % 3), 60 - 3 * (i % 4))
      mask = _mask(random, shape, landslide=kind == "landslide")
      image, dem = _image(random, mask), random.integers(0, 256, shape, np.uint8)
      _save(root / kind / "image" / f"df{i:03d}.png", image)
      _save(root / kind / "dem" / f"df{i:03d}.png", dem)
      if kind == "landslide":
        _save(root / kind / "mask" / f"df{i:03d}.png", mask * 255)
      contents[f"{kind}/df{i:03d}"] = image, dem, mask
  return contents


SITES = ("A Luoi_Vietnam", "Askja_Iceland", "Kodagu_India", "osh_Kyrgyzstan", "Tbilisi_Georgia")


def gvlm(root, sites=SITES, shape=(300, 530)):
  """Returns {site: (after, before, mask)}."""
  random, contents = np.random.default_rng(2), {}
  for site in sites:
    mask = np.zeros(shape, np.uint8)
    mask[50:90, 30:70] = 1  # In the first tile of the first row, and of the second in known rows only.
    mask[260:290, 300:340] = 1
    before, after = _image(random, np.zeros(shape)), _image(random, mask)
    for name, array in (("im1", before), ("im2", after), ("ref", mask * 255)):
      _save(root / site / f"{name}.png", array)
    contents[site] = after, before, mask
  return contents


def landslide4sense(root, count=10, *, validation=0):
  """Returns {folder/number: (image, mask)}."""
  random, contents = np.random.default_rng(3), {}
  for folder, numbers, masked in (
    ("TrainData", count, True), ("ValidData", max(validation, 2), validation > 0),
  ):
    for number in range(1, numbers + 1):
      mask = _mask(random, (128, 128), landslide=number % 4 > 0)
      image = random.normal(size=(128, 128, 14)) + 3.0 * mask[..., None]
      image[-1, -1] = 0.0  # Numbers that end in bytes of zero.
      for kind, key, array in (("img", "image", image), ("mask", "mask", mask)):
        if kind == "img" or masked:
          path = root / folder / kind / f"{key}_{number}.h5"
          path.parent.mkdir(parents=True, exist_ok=True)
          with h5py.File(path, "w") as file:
            file[kind] = array
      if masked:
        contents[f"{folder}/{number}"] = image, mask
  return contents


REGIONS = (
  "Hokkaido Iburi-Tobu", "Jiuzhai valley (UAV-0.2m)", "Jiuzhai valley (UAV-0.5m)", "Lombok",
  "Moxi town\uff08UAV-1m\uff09", "Moxitaidi (UAV-0.6m)", "palu", "Wenchuan",
)


def cas_landslide(root, regions=REGIONS, count=2, *, packed="Lombok"):
  """Returns {region's folder/name: (image, mask)}; one region is packed."""
  random, contents = np.random.default_rng(4), {}
  for region in regions:
    for i in range(count):
      mask = _mask(random, (512, 512), landslide=i % 2 == 0)
      image = _image(random, mask)
      for kind, array in (("img", image), ("mask", mask[..., None]), ("label", image)):
        _write_tiff(root / region / kind / f"{i}.tif", array)
      contents[f"{region}/{i}"] = image, mask
    if region == packed:
      _pack(root / region)
  (root / "study areas shp").mkdir()
  (root / "study areas shp" / "areas.shp").touch()
  return contents


def _write_tiff(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  size = {"height": array.shape[0], "width": array.shape[1], "count": array.shape[2]}
  with rasterio.open(path, "w", driver="GTiff", dtype="uint8", compress="deflate", **size) as file:
    file.write(np.moveaxis(array, -1, 0))


def _pack(folder):
  """Replaces a folder by a .zip of what it holds."""
  files = [path for path in folder.rglob("*") if path.is_file()]
  with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as archive:
    for path in files:
      archive.write(path, path.relative_to(folder))
      path.unlink()
  for place in sorted(folder.rglob("*"), reverse=True):
    place.rmdir()
  folder.rmdir()


def hr_gldd(root, counts=(8, 4, 2)):
  """Returns {split/index: (image, mask)}."""
  random, contents = np.random.default_rng(5), {}
  root.mkdir(parents=True, exist_ok=True)
  for split, count in zip(("train", "val", "test"), counts, strict=True):
    masks = np.stack([_mask(random, (128, 128), landslide=i % 4 > 0) for i in range(count)])
    images = random.uniform(0, 0.3, (count, 128, 128, 4)) + 0.5 * masks[..., None]
    np.save(root / f"{split}X.npy", images)
    np.save(root / f"{split}Y.npy", masks[..., None].astype(np.float64))
    contents |= {f"{split}/{i}": (images[i], masks[i]) for i in range(count)}
  return contents
