# ruff: noqa: F811
"""Catalogues and images in S3: a server that speaks it, in path style, stands for the real one."""

import contextlib
import json
import logging

import numpy as np
import pytest

from lgag_jax.blocks import area_job
from lgag_jax.catalogues import addresses, buckets, composites, open_image, search
from lgag_jax.geo.grid import Grid
from lgag_jax.options.area import Area, Engine, Imagery
from tests import area_data, faulty_server
from tests.area_data import NAMES
from tests.test_area_blocks import stub  # noqa: F401
from tests.test_catalogues import HERE

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "token-of-the-session"
SIGNED = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
CATALOGUE = "s3://bucket/catalog.json"
FAR = Imagery(assets=NAMES, timeout=1, retries=5)
GRID = Grid(area_data.SIDE, area_data.SIDE, HERE.crs, HERE.transform)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
  monkeypatch.setattr(open_image, "_PAUSE", 0.01)


@pytest.fixture
def bucket(tmp_path):
  """The folder of a bucket with a catalogue, of whose assets one has a whole address."""
  folder = tmp_path / "s3" / "bucket"
  area_data.tiles(folder, 1, 1)
  path = folder / "tile_0_0.json"
  item = json.loads(path.read_text())
  item["assets"]["green"]["href"] = "s3://bucket/tile_0_0/green.tif"
  path.write_text(json.dumps(item))
  return folder


@pytest.fixture
def serve(bucket, tmp_path, monkeypatch):
  """The function that serves the bucket, and sets the variables that say where, and to whom."""
  with contextlib.ExitStack() as stack:

    def start(faults=(), signed_by=KEY, **variables):
      address, log = stack.enter_context(faulty_server.serve(bucket.parent, faults, signed_by))
      for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_NO_SIGN_REQUEST", *SIGNED):
        monkeypatch.delenv(name, raising=False)
      none = str(tmp_path / "none")
      place = {
        "AWS_S3_ENDPOINT": address.removeprefix("http://"), "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": none,
        "AWS_SHARED_CREDENTIALS_FILE": none,
      }
      for name, value in (place | variables).items():
        monkeypatch.setenv(name, value)
      return log

    yield start


@pytest.mark.parametrize(("signed_by", "variables"), [
  (KEY, SIGNED), ("", {"AWS_NO_SIGN_REQUEST": "YES"}),
])
def test_a_bucket_that_fails_now_and_then_reads_as_its_folder(serve, bucket, signed_by, variables):
  faults = ("503", "", "truncate", "", "stall", "", "503", "truncate", "", "")
  log = serve(faults, signed_by, **variables)
  (image,) = search.find_images(CATALOGUE, None, 3, FAR)
  assert image.source == "s3://bucket/tile_0_0.json"
  assert [band.address for band in image.bands] == [f"s3://bucket/tile_0_0/{n}.tif" for n in NAMES]
  pixels, valid = composites.read_composite([image], GRID, 3, FAR)
  assert {fault for fault, _ in log} == {"", "503", "truncate", "stall"}
  assert {path for _, path in log} == {
    f"/bucket/{n}" for n in ("catalog.json", "tile_0_0.json", *(f"tile_0_0/{n}.tif" for n in NAMES))}
  assert valid.all()
  np.testing.assert_array_equal(pixels, area_data.ground(area_data.SIDE, area_data.SIDE))


def test_no_credential_is_written_or_logged(serve, stub, tmp_path, capfd, caplog):
  caplog.set_level(logging.DEBUG)
  serve(("", "", "503", "truncate", ""), **SIGNED)
  result = area_job.map_area(
    stub["workdir"], CATALOGUE, tmp_path / "out", FAR, Area(block_size=512), Engine()
  )
  assert not result.failed and "Trying again" in caplog.text
  files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
  assert {"manifest.json", "report.html", "landslides.parquet"} <= {path.name for path in files}
  shown = "".join([caplog.text, *capfd.readouterr()])
  texts = [path.read_bytes() for path in files] + [shown.encode()]
  for text in texts:
    assert not any(secret.encode() in text for secret in (KEY, SECRET, TOKEN))


@pytest.mark.parametrize(("name", "variables", "message"), [
  ("catalog.json", {"AWS_ACCESS_KEY_ID": "OTHER", "AWS_SECRET_ACCESS_KEY": SECRET},
   r"s3://bucket/catalog\.json cannot be read: .*ACCESS_DENIED.*AWS_NO_SIGN_REQUEST=YES"),
  ("catalog.json", {"AWS_NO_SIGN_REQUEST": "YES"}, "ACCESS_DENIED"),
  *(("catalog.json", {"AWS_S3_ENDPOINT": text}, "AWS_S3_ENDPOINT must be HOST or HOST:PORT alone")
    for text in ("http://h", f"https://me:{SECRET}@h", f"me:{SECRET}@h:9000")),
  ("none.json", SIGNED, r"s3://bucket/none\.json: no such file"),
  ("tile_0_0/red.tif", {}, "AWS_SECRET_ACCESS_KEY and AWS_NO_SIGN_REQUEST"),
  ("tile_0_0/none.tif", SIGNED, r"s3://bucket/tile_0_0/none\.tif"),
])
def test_what_cannot_be_read_is_named(serve, name, variables, message):
  serve(**variables)
  with pytest.raises((OSError, ValueError), match=message) as caught:
    search.find_images(f"s3://bucket/{name}", None, 3, Imagery(timeout=1, retries=0))
  assert SECRET not in str(caught.value)


def test_a_bucket_that_is_silent_is_left(serve, monkeypatch):
  monkeypatch.setattr(faulty_server, "STALL_SECONDS", 60.0)
  serve(("stall",), **SIGNED)
  with pytest.raises(OSError, match="cannot be read"):
    buckets.read(CATALOGUE, 100, Imagery(timeout=1))


@pytest.mark.parametrize("address", [
  f"s3://{KEY}:{SECRET}@bucket/catalog.json", f"s3://{KEY}:{SECRET}@bucket/a.tif",
  f"https://me:{SECRET}@host/catalog.json", f"https://{KEY}{TOKEN}@host/a.tif",
])
def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path, address):
  with pytest.raises(addresses.AddressError, match="must not hold a name or a password") as caught:
    search.find_images(address, None, 3, Imagery())
  assert not any(secret in str(caught.value) for secret in (KEY, SECRET, TOKEN))
  (tmp_path / "list.txt").write_text(address)
  with pytest.raises(addresses.AddressError, match="must not hold a name or a password"):
    search.find_images(str(tmp_path / "list.txt"), None, 3, Imagery(remote=True))


def test_a_signature_in_an_address_is_used_and_not_written(bucket, stub, tmp_path, caplog):
  caplog.set_level(logging.INFO, "lgag_jax")
  area_data.write_cog(bucket / "rgb.tif", area_data.ground(area_data.SIDE, area_data.SIDE))
  with faulty_server.serve(bucket, ("", "truncate", "")) as (address, log):
    signed = f"{address}/rgb.tif?X-Amz-Signature={SECRET}"
    (tmp_path / "list.txt").write_text(f"{signed}\n{address}/rgb.tif?n=2")
    far = Imagery(timeout=5, retries=10, remote=True)
    result = area_job.map_area(
      stub["workdir"], str(tmp_path / "list.txt"), tmp_path / "out", far, Area(block_size=512), Engine()
    )
  assert not result.failed and all("?" in path for _, path in log)
  manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
  assert [image["source"] for image in manifest["images"]] == [f"{address}/rgb.tif"] * 2
  files = [path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()]
  assert "Trying again" in caplog.text
  assert not any(SECRET in text for text in (*files, caplog.text))
