"""What README and CONTRIBUTING show is run, at small settings."""

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

import bayesscale as bs
import bayesscale.cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SMALL = partial(bs.Sampler, chains=2, draws=60, warmup=(30, 30), lanes=2, tiers=0)


def python_block(text):
    """The one block of Python in a text."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_the_notebook_example_runs_and_is_short(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("bayesscale.fitting.sampler_for", lambda likelihood: SMALL())
    plt.switch_backend("Agg")
    block = python_block(README)
    statements = [line for line in block.splitlines() if line.strip() and not line.startswith((" ", "import"))]
    assert len(statements) <= 5
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["fit"].name == "large-8b / topic / 2500"
    assert "crosses 0.7" in capsys.readouterr().out
    plt.close("all")


def test_pictures_and_links_exist_and_are_small():
    for link in re.findall(r"\]\(([^)#]+)\)", README + CONTRIBUTING):
        assert link.startswith("http") or (ROOT / link).is_file(), link
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 200_000


@pytest.mark.parametrize("command", re.findall(r"^    bayesscale (\w+)", README + CONTRIBUTING, re.MULTILINE))
def test_commands_shown_exist(command, capsys):
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main([command, "--help"])
    assert not ended.value.code


@pytest.mark.parametrize("command", ["fit", "passk", "verifier", "votes", "newmodel"])
def test_options_shown_exist(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        bayesscale.cli.main([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    shown = re.findall(rf"^    bayesscale {command} .*?(?=\n\n)", README + CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert shown and all(set(re.findall(r"--[a-z-]+", text)) <= known for text in shown)


@pytest.mark.parametrize(("command", "reader"), [("passk", "attempts"), ("verifier", "attempts"), ("votes", "votes")])
def test_tables_shown_are_read(command, reader, monkeypatch, tmp_path):
    """Everything up to the fit runs as shown: files, columns and options."""
    monkeypatch.chdir(ROOT)
    shown = re.search(rf"bayesscale ({command} .*?)\n\n", README, re.DOTALL)
    assert shown is not None
    seen = []
    job = {"passk": "coverage.run_coverage", "verifier": "verifier.run_verifier", "votes": "votes.run_votes"}[command]
    monkeypatch.setattr(f"bayesscale.runs.{job}", lambda data, *_, **__: seen.append(data) or sys.exit(0))
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main(shown[1].replace("\\\n", " ").split()[:-1] + [str(tmp_path / "out")])
    assert not ended.value.code and len(seen[0]) == 2 and seen[0].n.size == 240


def test_the_check_shown_works(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = re.search(r"bayesscale (check .*?)\n\n", README, re.DOTALL)
    assert command is not None
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main(command[1].replace("\\\n", " ").split())
    assert not ended.value.code and "12 curves, 570 rows" in capsys.readouterr().out


def test_the_law_in_contributing_is_a_law(tmp_path, monkeypatch):
    from bayesscale.cli.options import own_law

    path = tmp_path / "exponential.py"
    path.write_text(python_block(CONTRIBUTING), encoding="utf-8")
    law = own_law(f"{path}:EXPONENTIAL")
    assert "exponential" not in bs.LAWS and str(tmp_path) not in sys.path
    shots = np.array([0.0, 7.0, 14.0, 1e6])
    log_p, log_q = law.log_mean(shots, logit_ceiling=1.0, logit_zero_ratio=-1.0, log_halving=np.log(7.0))
    excess = np.asarray(log_p[-1] - log_p)
    assert excess[1:3] == pytest.approx(excess[0] * np.array([0.5, 0.25]))
    assert np.exp(log_p) + np.exp(log_q) == pytest.approx(np.ones(4))
    shots = [0, 5, 20, 100]
    table, _ = bs.simulate_icl(0, models=["m"], tasks=["t"], shots=shots)
    curves = bs.Curves.from_frame(table, curve=["model", "task"], successes="correct", trials="trials", run="run")
    fit = bs.fit(curves, law, sampler=SMALL(draws=20))
    assert fit.law is law and {"h", "log_halving"} <= set(fit.draws)
