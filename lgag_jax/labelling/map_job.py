"""Makes a map from the answers: tiles, a training and maps, each by the command line in a process.

Decisions on the polygons of an earlier map (--mode=review) count beside the answers.
"""

import contextlib
import dataclasses
import hashlib
import logging
import pathlib
import re
import signal
import subprocess
import threading
import time
from typing import Any

from lgag_jax.labelling import earlier_map, left_process, own_files
from lgag_jax.labelling.answers import Answers
from lgag_jax.labelling.own_files import OwnFiles
from lgag_jax.options.labelling import Settings
from lgag_jax.options.tiling import UNKNOWN_LABEL
from lgag_jax.runtime import files, packaged
from lgag_jax.runtime.python_command import python_command
from lgag_jax.tiling import output as tiling_output
from lgag_jax.tiling import review_files

_LOG = logging.getLogger(__name__)

LEAST = 4  # Answers of each kind: both splits need some.
_COMMAND = ("-m", "lgag_jax.main")
_RECORD = own_files.MAP_RECORD  # Which answers and decisions the folders were made from.
_COUNT = re.compile(r"(\d+)/(\d+) ")
_LOG_PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+ +\d+ \S+\] ")  # Time and place in the code.
_TAIL = 4096  # Bytes of a log that the last line is looked for in.
_PATIENCE = 60.0  # Seconds that a stopped training has to save its work.
_SKIPPED_SOME = 2  # Exit code of --mode=predict.


@dataclasses.dataclass(frozen=True)
class Step:
  """A command of the map, and the folder that it writes."""

  title: str
  folder: str
  flags: tuple[str, ...]


@dataclasses.dataclass
class Progress:
  """What the page shows of the map."""

  state: str = "none"  # Or "running", "done", "failed" or "stopped".
  step: int = 0
  line: str = ""
  started: float = 0.0
  answers: str = ""  # The digest of the answers and decisions that it is made from.


class MapJob:
  """The map of an output folder; one is made at a time."""

  def __init__(
    self, settings: Settings, answers: Answers, own: OwnFiles, channels: int,
    added: tuple[int, ...] = (),
  ):
    """`added` are the bands that lgag has added to the scenes (--mode=bands)."""
    self._settings, self._answers, self._channels, self._added = settings, answers, channels, added
    self._own, self._folder = own, pathlib.Path(settings.output)
    self._review = self._folder / earlier_map.MAPS / earlier_map.REVIEW
    earlier_map.recover(self._folder)
    self._lock, self._process, self._ending = threading.Lock(), None, False
    self._thread: threading.Thread | None = None
    self._progress, self._left = Progress(), None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      record = files.read_json(self._folder / _RECORD)
      self._progress = Progress("done" if record["done"] else "stopped", answers=record["answers"])
      if self._is_left(record.get("process")):
        self._left = record["process"]
        self._progress = Progress("running", int(record["step"]), "", time.time(), record["answers"])

  def _is_left(self, process: Any) -> bool:
    """Returns whether a process of the record still makes this folder's map."""
    return left_process.is_running(process, _COMMAND[-1], self._folder)

  def take_over(self) -> None:
    """Goes on with a map if a server that was killed has left its process running."""
    if self._left and self._thread is None:
      _LOG.warning(
        "A server that was killed has left a map in the making (process %d). This one waits for the "
        "process, and goes on with the map.", self._left["pid"],
      )
      self._thread = threading.Thread(target=self._wait_and_run, args=(self._left,), daemon=True)
      self._thread.start()

  def start(self) -> None:
    """Begins a map; resumes one that was stopped.

    Raises ValueError for too few answers, and while another process uses the folders of the map.
    """
    with self._lock:
      if self._progress.state == "running":
        raise ValueError("A map is being made already.")
      if missing := self.missing():
        raise ValueError(missing)
      earlier_map.require_free(self._folder)
      digest = self._digest()
      steps = self._steps()
      self._ending = False
      self._progress = Progress("running", started=time.time(), answers=digest)
      self._thread = threading.Thread(target=self._run, args=(steps, digest), daemon=True)
      self._thread.start()

  def stop(self) -> None:
    """Ends the map; a training saves its work first, and a later start resumes it."""
    with self._lock:
      self._ending = True
      if self._process:
        self._process.send_signal(signal.SIGTERM)
      elif self._left:
        left_process.stop(self._left, _COMMAND[-1], self._folder)
    if self._thread:
      self._thread.join(_PATIENCE)

  def missing(self) -> str:
    """Returns how many answers a map still needs, "" if there are enough."""
    labels = [answer.label for answer in self._answers.latest.values()]
    names = (*self._settings.classes, self._settings.background)
    short = [f"{LEAST - labels.count(n)} {n}" for n in names if labels.count(n) < LEAST]
    return f"A map needs more answers: {', '.join(short)}." if short else ""

  def state(self) -> dict[str, Any]:
    """Returns what the page shows of the map."""
    progress = self._progress
    found = _COUNT.search(progress.line)
    steps = [step.title for step in self._steps()]
    return {
      "state": progress.state, "step": progress.step, "steps": steps, "line": progress.line,
      "share": int(found[1]) / max(int(found[2]), 1) if found else None,
      "seconds": round(time.time() - progress.started) if progress.state == "running" else None,
      "missing": self.missing(),
      "outdated": progress.state == "done" and progress.answers != self._digest(),
    }

  def _digest(self) -> str:
    latest = self._answers.latest
    labels = sorted((key, a.label) for key, a in latest.items() if a.label != UNKNOWN_LABEL)
    content = (labels, self._answers.tile_size, self._settings.bands, *self._settings.file_flags)
    decisions = b"".join(files.read_regular(log) for log in self._decisions())
    return hashlib.sha256(repr(content).encode() + decisions).hexdigest()

  def _decisions(self) -> list[pathlib.Path]:
    """Returns the logs of what was decided on the map's polygons (--mode=review)."""
    logs = sorted(self._review.glob(f"*{review_files.LOG_SUFFIX}"))
    return [log for log in logs if log.stat().st_size]

  def _steps(self) -> list[Step]:
    settings = self._settings
    tiling = settings.tiling(self._answers.tile_size or 256)
    if self._decisions():
      tiling = dataclasses.replace(tiling, review=str(self._review))
    review = (f"--review={tiling.review}",) if tiling.review else ()
    bands = (f"--bands={','.join(map(str, settings.bands))}",) if settings.bands else ()
    source = f"--input={settings.input}", *settings.file_flags
    cut = (
      "--mode=tile", *source, f"--labels={tiling.labels}", f"--output={tiling.output}",
      f"--tile_size={tiling.tile_size}", f"--max_nodata={tiling.max_nodata}",
      f"--classes={','.join(tiling.classes)}", f"--background={tiling.background}", *bands, *review,
    )
    # By its whole path: the current folder may hold another file of that name.
    config = str(packaged.folder("configs") / "image_folder.py")
    train = tiling_output.training_flags(tiling, self._channels, self._added, config)
    workdir = f"--workdir={settings.output}/run"
    maps = "--mode=predict", workdir, *source, f"--output={settings.output}/maps", *bands, *review
    return [
      Step("Cut the tiles", "tiles", cut), Step("Train", "run", (*train, workdir)),
      Step("Map", "maps", maps),
    ]

  def _wait_and_run(self, process: dict[str, Any]) -> None:
    """Waits for a process of an earlier server, then does what is left of its map."""
    progress, steps = self._progress, self._steps()
    path = self._folder / f"{steps[progress.step].folder}.log"
    while self._is_left(process):
      with contextlib.suppress(OSError):
        progress.line = f"Begun by an earlier server. {_last_line(path)}"
      time.sleep(0.5)
    self._left = None
    if self._ending:
      progress.state = "stopped"
    else:
      self._run(steps, progress.answers)  # The command says at once what is done already.

  def _run(self, steps: list[Step], digest: str) -> None:
    progress = self._progress
    try:
      first = earlier_map.prepare(self._folder, self._own, digest)
      for number in range(first, len(steps)):
        progress.step, progress.line = number, ""
        code = self._call(number, steps[number], digest)
        if self._ending:
          progress.state = "stopped"
          return
        if code not in (0, _SKIPPED_SOME):
          progress.state = "failed"
          progress.line = f"{steps[number].title} failed: {progress.line}"
          return
      files.write_json(self._folder / _RECORD, {"answers": digest, "done": True})
      progress.state = "done"
    except Exception as error:  # The page goes on.
      _LOG.warning("No map was made: %s", error, exc_info=True)
      progress.state, progress.line = "failed", str(error)

  def _call(self, number: int, step: Step, digest: str) -> int:
    """Runs a command, and keeps the last line of its log for the page."""
    path = self._folder / f"{step.folder}.log"
    with files.new_file(path) as log:
      with self._lock:
        if self._ending:
          return -1
        # In a session of its own: Ctrl+C in the terminal ends the server, which ends this in order.
        self._process = subprocess.Popen(
          python_command(*_COMMAND, *step.flags), stdin=subprocess.DEVNULL, stdout=log,
          stderr=subprocess.STDOUT, start_new_session=True,
        )
      process = left_process.identify(self._process.pid)
      files.write_json(self._folder / _RECORD, {
        "answers": digest, "done": False, "step": number, "process": process})
      while self._process.poll() is None:
        self._progress.line = _last_line(path) or self._progress.line
        with contextlib.suppress(subprocess.TimeoutExpired):
          self._process.wait(0.5)
    self._progress.line = _last_line(path)
    return self._process.returncode


def _last_line(path: pathlib.Path) -> str:
  with files.open_regular(path) as file:
    file.seek(max(0, path.stat().st_size - _TAIL))
    lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
  last = next((line for line in reversed(lines) if line.strip()), "")
  return _LOG_PREFIX.sub("", " ".join(last.split()))[:500]
