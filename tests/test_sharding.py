"""The mesh: order and number of the devices of several processes."""

import types

import jax
import pytest

from lgag_jax.runtime import sharding


def test_processes_must_have_equally_many_devices():
  devices = [types.SimpleNamespace(process_index=p, id=i) for i, p in enumerate((0, 0, 1))]
  with pytest.raises(ValueError, match=r"process 0: 2, process 1: 1"):
    sharding.make_mesh(devices)


def test_a_mesh_orders_devices_by_process(monkeypatch):
  devices = jax.devices()
  monkeypatch.setattr(jax, "devices", lambda: devices[::-1])
  assert list(sharding.make_mesh().devices) == devices
