"""Valid files of every kind that the package reads, small ones, to begin the fuzzing with."""

import csv
import gzip
import io
import pathlib
import pickle
import struct
import tarfile
import tempfile
import zipfile

import numpy as np
import pyogrio.raw
import rasterio
import safetensors.numpy
import shapely
from PIL import Image

SIDE = 24


def pixels(*shape: int, dtype: type[np.integer] = np.uint8) -> np.ndarray:
  """Returns noise."""
  return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def _pillow(kind: str, *variants: tuple[Image.Image, dict]) -> list[bytes]:
  result = []
  for image, options in variants:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    result.append(buffer.getvalue())
  return result


def pngs() -> list[bytes]:
  """Colour, palette, alpha, and animated."""
  colour = Image.fromarray(pixels(SIDE, SIDE, 3))
  return _pillow(
    "png", (colour, {}), (colour.quantize(16), {}), (colour.convert("RGBA"), {}),
    (colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
  )


def jpegs() -> list[bytes]:
  """Plain, progressive, CMYK, with restart markers."""
  colour = Image.fromarray(pixels(SIDE, SIDE, 3))
  return _pillow(
    "jpeg", (colour, {}), (colour, {"progressive": True}), (colour.convert("CMYK"), {}),
    (colour, {"restart_marker_rows": 1}),
  )


def tiff(array: np.ndarray, driver: str = "GTiff", **options) -> bytes:
  """Returns a TIFF, or a file of another driver."""
  bands = array if array.ndim == 3 else array[None]
  # By the suffix the driver tells a JP2 from a bare codestream.
  with rasterio.MemoryFile(ext=".jp2" if driver == "JP2OpenJPEG" else ".tif") as memory:
    profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with memory.open(driver=driver, dtype=bands.dtype, **profile, **options) as raster:
      raster.write(bands)
    return memory.read()


def tiffs() -> list[bytes]:
  """Strips and tiles, compressions, types, georeference, nodata."""
  small = {"tiled": True, "blockxsize": 16, "blockysize": 16}
  place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2.0, 0.0, 5e5, 0.0, -2.0, 5e6)}
  bands = pixels(3, 40, 40)
  return [
    tiff(bands), tiff(bands, compress="deflate", **small, **place), tiff(bands, compress="lzw"),
    tiff(bands, compress="packbits", interleave="band"), tiff(bands, BIGTIFF="YES", **small),
    tiff(bands, compress="jpeg", photometric="YCBCR", **small),
    tiff(pixels(3, 40, 40, dtype=np.uint16), compress="deflate", predictor=2, nodata=0),
    tiff(pixels(3, 40, 40).astype(np.float32), compress="zstd", nodata=np.nan, **small),
  ]


def jp2s() -> list[bytes]:
  """One tile and several, lossless and not."""
  bands = pixels(3, 80, 70)
  small = {"BLOCKXSIZE": 64, "BLOCKYSIZE": 64}
  return [
    tiff(bands, driver="JP2OpenJPEG", **options)
    for options in ({}, small, {"QUALITY": 100, "REVERSIBLE": "YES", **small})
  ]


def vrts() -> list[bytes]:
  """A mosaic of one file, whole and in part."""
  source = (
    '<{0}Source><SourceFilename relativeToVRT="1">part.tif</SourceFilename><SourceBand>{1}</SourceBand>'
    '<SrcRect xOff="0" yOff="0" xSize="40" ySize="{2}"/><DstRect xOff="{3}" yOff="0" xSize="40" '
    'ySize="{2}"/>{4}</{0}Source>'
  )
  result = []
  for kind, height, shift, more in (("Simple", 40, 0, ""), ("Complex", 20, 9, "<NODATA>0</NODATA>")):
    bands = "".join(
      f'<VRTRasterBand dataType="Byte" band="{k}"><NoDataValue>0</NoDataValue>'
      f"{source.format(kind, k, height, shift, more)}</VRTRasterBand>" for k in (1, 2, 3)
    )
    place = "<SRS>EPSG:32633</SRS><GeoTransform>5e5, 2, 0, 5e6, 0, -2</GeoTransform>"
    head = '<VRTDataset rasterXSize="50" rasterYSize="40">'
    result.append(f"{head}{place}{bands}</VRTDataset>".encode())
  return result


def layers(suffix: str) -> list[bytes]:
  """Polygons and points with a class field, in degrees and in metres, in a format of vectors."""
  ring = np.array([(3.0, 3), (20, 4), (18, 20), (3, 3)])
  polygons = shapely.polygons([ring, ring + 9])
  result = []
  for shapes, kind, crs in (
    (polygons, "Polygon", "EPSG:32633"), (shapely.points([(4, 5), (9.5, 9)]), "Point", "EPSG:4326"),
  ):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, f"x{suffix}")
      scale = np.array([2.0, -2]), np.array([5e5, 5e6])
      if kind == "Point":
        scale = np.array([1e-5, -1e-5]), np.array([15.0, 45.15])
      placed = shapely.transform(shapes, lambda points, s=scale: points * s[0] + s[1])
      pyogrio.raw.write(
        path, shapely.to_wkb(placed), [np.array(["a", "b"], object)], ["type"], crs=crs,
        geometry_type=kind,
      )
      result.append(path.read_bytes())
  return result


def masks() -> list[bytes]:
  """PNG and TIFF, bits, integers and floats."""
  mask = (pixels(40, 40) > 128).astype(np.uint8)
  return [
    *_pillow("png", (Image.fromarray(mask), {}), (Image.fromarray(mask * 255).convert("1"), {})),
    tiff(mask), tiff(mask.astype(np.float32), compress="deflate"), tiff(mask.astype(np.int16)),
  ]


def manifests() -> list[bytes]:
  """Files, images with masks, parts of scenes."""
  rows = [
    {"file": "a.png", "split": "train"}, {"file": "b.png", "split": "validation"},
    {"image": "images/a.png", "mask": "masks/a.png", "split": "train", "row_start": 0, "row_stop": 20,
     "col_start": 4, "col_stop": 20},
  ]
  result = []
  for part in (rows[:2], rows[2:], [{"file": "", **rows[2]}, rows[1]]):
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(part[0]))
    writer.writeheader()
    writer.writerows(part)
    result.append(buffer.getvalue().encode())
  return result


def _tensors() -> dict[str, np.ndarray]:
  numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  return {"conv.weight": numbers, "bias": np.ones(5, np.float16)}


def safetensor_files() -> list[bytes]:
  """Two tensors, and a number."""
  return [safetensors.numpy.save(_tensors()), safetensors.numpy.save({"a": np.zeros((), np.int64)})]


def npz() -> list[bytes]:
  """Stored and compressed."""
  result = []
  for save in (np.savez, np.savez_compressed):
    buffer = io.BytesIO()
    save(buffer, allow_pickle=False, **_tensors())
    result.append(buffer.getvalue())
  return result


def _torch_pickle() -> bytes:
  """The pickle of a state dict with one tensor, as torch writes it."""
  tensor = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000"
    b"X\x03\0\0\0cpuK\x18tQK\0K\x04K\x06\x86K\x06K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
  )
  return b"\x80\x02ccollections\nOrderedDict\n)R(X\x08\0\0\0a.weight" + tensor + b"u."


def pths() -> list[bytes]:
  """Torch's zip form, and the one before it."""
  buffer, numbers = io.BytesIO(), np.arange(24, dtype=np.float32).tobytes()
  with zipfile.ZipFile(buffer, "w") as archive:
    archive.writestr("archive/data.pkl", _torch_pickle())
    archive.writestr("archive/byteorder", b"little")
    archive.writestr("archive/data/0", numbers)
  head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
  legacy = [pickle.dumps(value, 2) for value in head] + [_torch_pickle().replace(b"tQ", b"NtQ")]
  legacy += [pickle.dumps(["0"], 2), struct.pack("<q", 24), numbers]
  return [buffer.getvalue(), b"".join(legacy)]


def zips() -> list[bytes]:
  """Archives of a small data set, deflated and stored."""
  result = []
  for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
      for name, data in _members():
        file.writestr(name, data)
    result.append(buffer.getvalue())
  return result


def tars() -> list[bytes]:
  """Archives of a small data set, in the three formats of headers."""
  result = []
  for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
      for name, data in _members():
        # A long name, and not in ASCII, takes a header of its own.
        long = name if form == tarfile.USTAR_FORMAT else name.replace("a.", "\u00e9" * 70 + ".")
        info = tarfile.TarInfo(long)
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    result.append(buffer.getvalue().rstrip(b"\0") + bytes(2048))
  return result


def gzipped_tars() -> list[bytes]:
  """The same, packed; and as they are, for inputs that are packed after they were changed."""
  return [*(gzip.compress(data, mtime=0) for data in tars()), *tars()]


def _members() -> list[tuple[str, bytes]]:
  return [("landslide/a.png", pngs()[0]), ("non-landslide/b.png", bytes(700)), ("empty.txt", b"")]
