"""Choosing the device a command computes on."""

import os
import subprocess
import sys

import jax
import pytest

from bayesscale.cli.device import Device, use_device


@pytest.fixture
def platforms(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.delenv("JAX_PLATFORMS")


def test_auto_leaves_the_choice_to_jax(platforms):
    use_device(Device.auto)
    assert "JAX_PLATFORMS" not in os.environ


def test_the_cpu_can_be_asked_for(platforms):
    use_device(Device.cpu)
    assert os.environ["JAX_PLATFORMS"] == "cpu"


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU here")
def test_a_device_that_is_not_there_is_one_sentence():
    command = [sys.executable, "-c", "from bayesscale.cli import main; main(['--device', 'gpu', 'laws'])"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "finds no gpu" in done.stderr and "Traceback" not in done.stderr
