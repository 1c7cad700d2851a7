"""Compiled programs are kept where only their user can write."""

import os
import stat

import pytest

from bayesscale.cli.compile_cache import cache_folder, keep_programs
from bayesscale.finding import InputError

SETTINGS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in SETTINGS:  # set first, so that what the call sets is undone as well
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def test_the_folder_is_made_private_and_told_to_jax(home):
    keep_programs()
    assert cache_folder().is_relative_to(home) and stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(cache_folder())


def test_a_folder_others_may_write_to_is_refused(home):
    cache_folder().mkdir(parents=True)
    cache_folder().chmod(0o777)
    with pytest.raises(InputError, match="others may write"):
        keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_place_that_cannot_hold_it_is_named(home, monkeypatch):
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(InputError, match="cannot be made"):
        keep_programs()
