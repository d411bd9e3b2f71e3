"""Lets functions fail as they do where a disk is full."""

import errno
import os


def fill_at(monkeypatch, place, name, call):
  """Lets a function fail as on a full disk from its call of this number on."""
  function, calls = getattr(place, name), iter(range(1, 1 << 20))

  def write(*arguments, **options):
    if next(calls) < call:
      return function(*arguments, **options)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

  monkeypatch.setattr(place, name, write)
