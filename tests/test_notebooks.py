"""Every notebook runs from top to bottom at small settings."""

import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))

SAID = {"suppressed_by_finetuning": "crosses 0.6", "counts_to_decision": "regret of the choice"}
"""What the answer of each notebook says."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch, capsys):
    monkeypatch.setenv("BAYESSCALE_QUICK", "1")
    mpl.use("Agg")
    names = runpy.run_path(str(path))
    assert names["fits"]
    assert SAID[path.stem] in capsys.readouterr().out
