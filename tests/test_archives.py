"""Archives that unpack, archives that are refused, and that a refused one leaves no files."""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import fuzz_inputs
from lgag_jax.config import DataConfig
from lgag_jax.inputs import sources, splits
from lgag_jax.runtime import archives, lock, processes
from lgag_jax.runtime.archives import ArchiveError

KINDS = (".zip", ".tar", ".tar.gz")


def png(value=0):
  buffer = io.BytesIO()
  Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(buffer, "png")
  return buffer.getvalue()


def pack(path, members):
  """Writes members (name, bytes), or (name, None) for a folder, in their order."""
  if path.suffix == ".zip":
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
      for name, data in members:
        file.writestr(name + "/" * (data is None), data or b"")
    return path
  with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
    for name, data in members:
      info = tarfile.TarInfo(name)
      info.type, info.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
      file.addfile(info, io.BytesIO(data or b""))
  return path


def refuse(path, match):
  """Asserts that unpacking fails with a message that names the archive, and leaves no files."""
  before = sorted(path.parent.parent.rglob("*"))
  with pytest.raises(ArchiveError, match=match) as caught:
    archives.unpack_once(path)
  assert str(path) in str(caught.value)
  assert sorted(path.parent.parent.rglob("*")) == before


@pytest.fixture
def place(tmp_path):
  (tmp_path / "data").mkdir()
  return tmp_path / "data"


def data_set(top=""):
  return [
    (f"{top}{folder}/{i}.png", png(i)) for folder in ("landslide", "non-landslide") for i in range(5)
  ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", ["", "some set/", "./", "__MACOSX", ".DS_Store"])
def test_a_data_set_trains_from_its_archive(place, kind, top):
  extra = {"__MACOSX": [("__MACOSX/set/._0.png", b"fork")], ".DS_Store": [(top, b"x")]}.get(top, [])
  top = "set/" if extra else top
  path = pack(place / f"set{kind}", data_set(top) + extra)
  config = DataConfig(directory=str(path))
  source = sources.open_source(config, "train")
  assert len(source.ids) == 8
  assert {int(source.read(i)[0].max()) for i in range(8)} == {0, 1, 2, 3}
  names = sorted(entry.name for entry in place.iterdir())
  assert names == [f".set{kind}.unpacked.json", f"set{kind}", f"set{kind}.unpacked"]
  # A second call uses the folder, with the changes of its owner.
  marker = splits.require_directory(config) / "mine.txt"
  marker.touch()
  assert splits.require_directory(config) == marker.parent
  assert marker.exists()


def test_a_changed_archive_is_not_confused_with_the_old_one(place):
  path = pack(place / "set.zip", data_set())
  archives.unpack_once(path)
  later = time.time() + 5
  os.utime(path, (later, later))
  with pytest.raises(ArchiveError, match=r"set\.zip is newer than .*set\.zip\.unpacked: remove"):
    archives.unpack_once(path)


def unpacked(place, kind, *, recorded, days):
  """Unpacks an archive of some days ago; returns its time. Earlier releases kept no record."""
  path = pack(place / f"set{kind}", data_set())
  when = time.time() - 86400 * days
  os.utime(path, (when, when))
  archives.unpack_once(path)
  if not recorded:
    (place / f".set{kind}.unpacked.json").unlink()
  return path, when


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recorded", [True, False])
def test_another_archive_is_noticed_whatever_its_time(place, kind, recorded):
  path, when = unpacked(place, kind, recorded=recorded, days=30)
  archives.unpack_once(path)
  if not recorded:  # The call above kept one.
    (place / f".set{kind}.unpacked.json").unlink()
  members = [(name, png(99) if name.endswith(".png") else data) for name, data in data_set()]
  new = pack(place / f"new{kind}", members)
  time.sleep(0.02)  # Times of files are only as fine as the kernel's clock.
  os.replace(new, path)
  os.utime(path, (when + 86400,) * 2)  # As wget and cp -p do.
  for _ in range(2):
    with pytest.raises(ArchiveError, match=r"is another archive than .*\.unpacked was.*remove that"):
      archives.unpack_once(path)
  shutil.rmtree(place / f"set{kind}.unpacked")
  assert next(archives.unpack_once(path).rglob("*.png")).read_bytes() == png(99)
  archives.unpack_once(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_copy_of_the_same_archive_is_no_other_one(place, kind, recorded):
  path, when = unpacked(place, kind, recorded=recorded, days=30)
  folder = archives.unpack_once(path)
  if not recorded:
    (place / f".set{kind}.unpacked.json").unlink()
  next(folder.rglob("*.png")).unlink()  # Its owner may change the folder.
  (folder / "mine.txt").touch()
  shutil.copy(path, place / "copy")
  os.replace(place / "copy", path)
  os.utime(path, (when - 86400,) * 2)
  for _ in range(2):
    assert archives.unpack_once(path) == folder
  assert (folder / "mine.txt").exists()


def test_fewer_files_in_an_archive_of_the_same_time(place):
  path, when = unpacked(place, ".zip", recorded=True, days=2)
  pack(path, data_set()[:-1])
  os.utime(path, (when, when))
  with pytest.raises(ArchiveError, match="is another archive"):
    archives.unpack_once(path)


def test_an_archive_from_the_future_is_unpacked_once(place):
  path = pack(place / "set.zip", data_set())
  os.utime(path, (time.time() + 1000,) * 2)
  assert archives.unpack_once(path) == archives.unpack_once(path)


def test_a_folder_may_have_the_suffix_of_an_archive(place):
  (place / "set.zip").mkdir()
  assert splits.require_directory(DataConfig(directory=str(place / "set.zip"))).name == "set.zip"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
  "name", ["../out.png", "a/../../out.png", "/tmp/out.png", "..", "C:/out.png", "a\\..\\out.png"]
)
def test_names_outside_the_folder_are_refused(place, kind, name):
  refuse(pack(place / f"bad{kind}", [("good.png", png()), (name, b"x")]), "outside its folder")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", "."])
def test_files_without_a_name_are_refused(place, kind, name):
  path = pack(place / f"bad{kind}", [(name or "nn", b"x")])
  if not name:  # zipfile and tarfile do not write an empty name, but read one that begins with a zero.
    content = gzip.decompress(path.read_bytes()) if kind == ".tar.gz" else path.read_bytes()
    content = fuzz_inputs.repair_tar(content.replace(b"nn", b"\0n"))
    path.write_bytes(gzip.compress(content) if kind == ".tar.gz" else content)
  refuse(path, "file without a name")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [
  ("a.png", "a.png"), ("a.png", "A.png"), ("x/a.png", "X/b.png"), ("a", "a/b.png"), ("a/b.png", "a"),
  ("\u00e9.png", "e\u0301.png"), ("stra\u00dfe.png", "STRASSE.png"), ("a/b.png", "a/./b.png"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(place, kind, names):
  refuse(pack(place / f"bad{kind}", [(name, b"x") for name in names]), "are the same path")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x" * 201, "/".join("x" * 17), "bell\a.png", "line\n.png"])
def test_names_that_file_systems_or_logs_cannot_hold_are_refused(place, kind, name):
  refuse(pack(place / f"bad{kind}", [(name, b"x")]), "too long or too deep|control characters")


@pytest.mark.parametrize("kind", [
  tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
  tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"V",
])
def test_tar_members_other_than_files_are_refused(place, kind):
  path = place / "bad.tar"
  with tarfile.open(path, "w") as file:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc"
    file.addfile(info)
    file.addfile(tarfile.TarInfo("link/passwd"))
  if kind == tarfile.CONTTYPE:  # A plain file, where the next member needs a folder.
    refuse(path, "the same path")
  else:
    refuse(path, "'link' is a link or a device|damaged")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_members_other_than_files_are_refused(place, mode):
  path = place / "bad.zip"
  with zipfile.ZipFile(path, "w") as file:
    info = zipfile.ZipInfo("link")
    info.external_attr = (mode | 0o777) << 16
    file.writestr(info, "/etc")
  refuse(path, "'link' is a link or a device")


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_archives_with_a_high_compression_ratio_are_refused(place, kind, monkeypatch):
  monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
  path = pack(place / f"bomb{kind}", [(f"{i}.tif", bytes(1 << 20)) for i in range(20)])
  assert path.stat().st_size < (20 << 20) / archives.MAX_RATIO
  refuse(path, "exceeds")


@pytest.mark.parametrize("kind", KINDS)
def test_the_total_and_the_number_of_files_are_limited(place, kind, monkeypatch):
  path = pack(place / f"many{kind}", [(f"{i}", os.urandom(1000)) for i in range(11)])
  with monkeypatch.context() as patch:
    patch.setattr(archives, "MAX_BYTES", 10_999)
    refuse(path, "exceeds 10999 bytes")
  monkeypatch.setattr(archives, "MAX_FILES", 10)
  refuse(path, "more than 10 files")


def test_the_limit_counts_written_bytes_not_those_of_headers(place, monkeypatch):
  path = pack(place / "lie.zip", [("a.tif", bytes(1 << 22))])
  data = path.read_bytes()
  assert data.count(struct.pack("<I", 1 << 22)) == 2
  path.write_bytes(data.replace(struct.pack("<I", 1 << 22), struct.pack("<I", 10)))
  refuse(path, "damaged")  # Not 4 MiB: the first ten bytes have another checksum.
  monkeypatch.setattr(archives, "MAX_BYTES", 1000)
  path.write_bytes(data.replace(struct.pack("<I", 1 << 22), struct.pack("<I", 1 << 31)))
  refuse(path, "exceeds 1000 bytes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.6, 0.95])
def test_truncated_archives_are_refused(place, kind, fraction):
  members = [(f"{i}.bin", os.urandom(3000)) for i in range(10)]
  path = pack(place / f"cut{kind}", members)
  data = path.read_bytes()
  whole = data.rstrip(b"\0") if kind == ".tar" else data
  path.write_bytes(whole[: int(len(whole) * fraction)])
  refuse(path, "damaged")


def test_a_damaged_header_is_not_mistaken_for_the_end(place):
  path = pack(place / "set.tar", [("a.png", png()), ("b.png", png())])
  data = bytearray(path.read_bytes())
  data[data.index(b"b.png")] ^= 1
  path.write_bytes(data)
  refuse(path, "damaged: there is neither a header nor an end mark at byte 1024")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_the_size_of_headers_is_limited(place, kind):
  info = tarfile.TarInfo("x")
  info.type, info.size = kind, 1 << 40
  with gzip.open(place / "bad.tar.gz", "wb") as file:
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    for _ in range(64):
      file.write(bytes(1 << 20))
  started = time.monotonic()
  refuse(place / "bad.tar.gz", "one of its headers exceeds|damaged")
  assert time.monotonic() - started < 10.0  # Reading what it claims would take minutes.


def test_encrypted_zips_and_unsupported_compression_are_refused(place):
  path = pack(place / "secret.zip", [("a.png", png())])
  data = bytearray(path.read_bytes())
  data[data.index(b"PK\1\2") + 8] |= 1
  path.write_bytes(data)
  refuse(path, "encrypted")
  with zipfile.ZipFile(place / "lzma.zip", "w", zipfile.ZIP_LZMA) as file:
    file.writestr("a.png", png())
  refuse(place / "lzma.zip", "unsupported compression")


def test_a_full_disk_is_not_reported_as_damage(place, monkeypatch):
  path = pack(place / "set.zip", data_set())

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(archives, "_write_members", full)
  with pytest.raises(OSError, match=r"No space left.*set\.zip") as caught:
    archives.unpack_once(path)
  assert not isinstance(caught.value, ValueError)
  assert [p.name for p in place.iterdir()] == ["set.zip"]


def test_two_runs_at_once_unpack_one_folder(place, monkeypatch):
  path = pack(place / "set.zip", data_set())
  other_lock = lock.try_acquire(place / "set.zip.unpacked.lock")

  def finish(_):  # The other run finishes while this one waits.
    archives.unpack(path, place / "set.zip.unpacked")
    other_lock.close()

  monkeypatch.setattr(lock.time, "sleep", finish)
  assert len(list(archives.unpack_once(path).rglob("*.png"))) == 10
  assert not list(place.glob("*.partial*"))


def test_the_partial_folder_of_a_killed_run_is_removed(place):
  path = pack(place / "set.zip", data_set())
  (place / "set.zip.unpacked.partial" / "half").mkdir(parents=True)
  archives.unpack_once(path)
  assert not list(place.glob("*.partial*"))
  assert len(list((place / "set.zip.unpacked").rglob("*.png"))) == 10


def test_folders_that_names_imply_are_counted(place, monkeypatch):
  monkeypatch.setattr(archives, "MAX_FILES", 50)
  deep = [(f"{i}/a/b/c/d/e/f/x.png", b"1") for i in range(20)]
  with pytest.raises(ArchiveError, match="more than 50 files and folders"):
    archives.unpack_once(pack(place / "set.zip", deep))


def test_other_processes_wait_for_the_first_and_use_its_folder(place, monkeypatch):
  path = pack(place / "set.tar", data_set())
  monkeypatch.setattr(processes, "is_first", lambda: False)
  steps = []

  def barrier(_):
    steps.append(sorted(p.name for p in place.iterdir()))
    archives.unpack_once(path)  # The first process unpacks while this one waits.

  unpack = archives.unpack
  monkeypatch.setattr(processes, "barrier", barrier)
  monkeypatch.setattr(archives, "unpack", lambda *a: steps.append("unpacks") or unpack(*a))
  root = splits.require_directory(DataConfig(directory=str(path)))
  assert steps == [["set.tar"], "unpacks"]
  assert (root / "landslide" / "0.png").exists()
