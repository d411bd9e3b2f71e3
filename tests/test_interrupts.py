"""Ctrl-C and an output that cannot be written end a command without a traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.test_command_line import ROOT

# Reports when the command has come to a place, and stays there.
PROGRAM = """
import importlib, os, runpy, sys, time
def stop(*_, **__):
  os.write(2, b"HERE")
  time.sleep(60)
module, _, name = sys.argv.pop(1).partition(":")
if module:
  setattr(importlib.import_module(module), name, stop)
runpy.run_module("lgag_jax.main", run_name="__main__", alter_sys=True)
"""
PREDICT = ["--mode=predict", "--workdir=none", "--input=README.md", "--output={}/maps"]
TILE = ["--mode=tile", "--input=README.md", "--labels=none.gpkg", "--output={}/tiles"]


def command(place, arguments, **options):
  return subprocess.Popen(
    [sys.executable, "-c", PROGRAM, place, *arguments], cwd=ROOT, text=True, stderr=subprocess.PIPE,
    **options,
  )


@pytest.mark.parametrize(("place", "arguments"), [
  pytest.param(
    "lgag_jax.cli.command_line:parse_flags", ["--help"], id="flags", marks=pytest.mark.longest),
  pytest.param("lgag_jax.imagery.listing:scene_files", PREDICT, id="input"),
  pytest.param(
    "lgag_jax.runtime.processes:start", ["--mode=report", "--workdir=none"], id="start",
    marks=pytest.mark.longest),
  pytest.param("lgag_jax.tiling.tile:cut", TILE, id="tile"),
])
def test_an_interrupt_ends_every_mode_without_a_traceback(tmp_path, place, arguments):
  process = command(place, [word.format(tmp_path) for word in arguments])
  seen = ""
  while not seen.endswith("HERE"):
    seen += (letter := process.stderr.read(1))
    assert letter, seen
  process.send_signal(signal.SIGINT)
  _, rest = process.communicate(timeout=20)
  assert process.returncode == -signal.SIGINT and not rest


MODES = {
  "train": ["--config=configs/image_folder.py", "--config.data.directory=none", "--workdir={}/run"],
  "doctor": ["--mode=doctor", "--config=configs/image_folder.py", "--workdir={}/run"],
  "eval": ["--mode=eval", "--workdir={}/run"],
  "pseudo": ["--mode=pseudo", "--workdir={}/run"],
  "export": ["--mode=export", "--workdir={}/run", "--output={}/out"],
}


@pytest.mark.longest
@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_leaves_nothing_in_any_mode(tmp_path, mode):
  arguments = [word.format(tmp_path) for word in MODES[mode]]
  test_an_interrupt_ends_every_mode_without_a_traceback(
    tmp_path, "lgag_jax.runtime.processes:start", arguments
  )
  assert not list(tmp_path.iterdir())


@pytest.mark.longest
def test_an_interrupt_while_libraries_are_imported_ends_the_command():
  for delay in (0.8, 1.6, 2.4):
    process = command("", ["--mode=report", "--workdir=none"])
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert "Traceback" not in rest and process.returncode in (-signal.SIGINT, 1)


def test_an_interrupt_that_a_parent_has_turned_off_stays_off():
  process = command(
    "lgag_jax.cli.command_line:help_text", ["--help"], start_new_session=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
  )
  assert process.stderr.read(4) == "HERE"
  process.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert process.poll() is None
  process.kill()
  process.communicate()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--mode=datasets"], ["--mode=completion"]])
def test_a_reader_that_has_gone_ends_the_command_quietly(arguments, unbuffered):
  read, write = os.pipe()
  os.close(read)
  process = command("", arguments, stdout=write, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
  os.close(write)
  _, text = process.communicate(timeout=60)
  assert (process.returncode, text) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--mode=datasets"]])
def test_an_output_without_space_is_named_in_one_line(arguments, unbuffered):
  with open("/dev/full", "w") as full:
    process = command("", arguments, stdout=full, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    _, text = process.communicate(timeout=60)
  assert process.returncode == 1
  assert text == "Error: the standard output cannot be written: No space left on device.\n"


def test_a_closed_output_is_no_error():
  process = command("", ["--version"], preexec_fn=lambda: os.close(1))
  with contextlib.closing(process.stderr):
    assert process.wait(timeout=60) == 0 and not process.stderr.read()
