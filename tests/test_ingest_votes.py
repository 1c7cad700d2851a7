"""The door of votes: wide and long tables, and every bad one refused or set aside with a code and a place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesscale.finding import InputError
from bayesscale.ingest.vote_roles import answer_labels
from bayesscale.ingest.votes import read_votes
from bayesscale.votes import Votes

GPQA = Path(__file__).parents[1] / "../shared/data/resampling/epoch_gpqa_diamond_votes.csv"
HEADER = "model,problem,target,votes_a,votes_b,votes_c,none,n,n_correct,there"
GOOD = [f"m,p{i},B,1,{i % 5 + 1},1,1,{i % 5 + 4},{i % 5 + 1},1" for i in range(30)]
WIDE: dict[str, Any] = {
    "model": "model", "problem": "problem", "votes": ["votes_a", "votes_b", "votes_c"], "target": "target",
    "n": "n", "none": "none", "correct": "n_correct",
}  # fmt: skip
LONG: dict[str, Any] = {"model": "model", "problem": "problem", "answer": "answer", "count": "count"}
LONG_HEADER = "model,problem,answer,count,right,target"


def wide(*rows: str, good: list[str] = GOOD) -> str:
    """A table whose `rows` start on line 32, after 30 good ones."""
    return "\n".join([HEADER, *good, *rows]) + "\n"


def long(*rows: str) -> str:
    return "\n".join([LONG_HEADER, *rows]) + "\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to_file(content: str, name: str = "t.csv") -> str:
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return to_file


def codes(votes: Votes) -> list[str]:
    return [finding.code for finding in votes.findings]


def test_wide_table(write):
    votes = read_votes(write(wide()), **WIDE)
    assert (len(votes), votes.n.size, votes.answers, codes(votes)) == (1, 30, ("a", "b", "c"), [])
    row = votes.problems.index("p3")
    assert votes.counts[row].tolist() == [1, 4, 1] and votes.correct[row] == 1
    assert (votes.n[row], votes.n_none[row], votes.n_correct[row]) == (7, 1, 4)


@pytest.mark.parametrize("target", ["B", "b", " b ", "votes_b", "VOTES_B"])
def test_target_names_a_column_or_its_suffix_in_either_case(write, target):
    votes = read_votes(write(wide(f"m,x,{target},0,2,0,0,2,2,1")), **WIDE)
    assert votes.correct[votes.problems.index("x")] == 1


def test_answers_are_named_by_what_follows_the_common_prefix():
    assert answer_labels(["votes_a", "votes_b"]) == ("a", "b")
    assert answer_labels(["v_1", "v_10"]) == ("1", "10")
    assert answer_labels(["yes", "no"]) == ("yes", "no")
    assert answer_labels(["a", "ab"]) == ("a", "ab")


SET_ASIDE = {
    "votes-not-n": ("m,x,B,1,1,1,0,4,1,1", "ROW-VOTES", "the votes do not add up to n", "n=4"),
    "correct-contradicted": ("m,x,B,1,2,1,0,4,3,1", "ROW-CORRECT", "not as many as the correct samples", "n_correct=3"),
    "target-unknown": ("m,x,D,1,2,1,0,4,2,1", "ROW-TARGET", "none of the answers voted on", "target=D"),
    "target-missing": ("m,x,,1,2,1,0,4,2,1", "ROW-TARGET", "none of the answers voted on", "target="),
    "negative": ("m,x,B,-1,2,1,0,2,2,1", "ROW-COUNT", "a negative count", "votes_a=-1"),
    "fractional": ("m,x,B,0.5,2,1,0,4,2,1", "ROW-COUNT", "a fractional count", "votes_a=0.5"),
    "not-a-number": ("m,x,B,many,2,1,0,4,2,1", "ROW-NUMBER", "not a number", "votes_a=many"),
    "huge": ("m,x,B,1,9007199254740993,1,0,4,2,1", "ROW-NUMBER", "above 2^53", "votes_b=9007199254740993"),
    "no-votes": ("m,x,B,0,0,0,0,0,0,1", "ROW-COUNT", "no votes were cast", "votes_a=0"),
    "no-problem": ("m,,B,1,2,1,0,4,2,1", "ROW-KEY", "missing", "problem="),
}


@pytest.mark.parametrize(("row", "code", "what", "cell"), SET_ASIDE.values(), ids=SET_ASIDE.keys())
def test_a_bad_row_is_set_aside_with_its_place(write, row, code, what, cell):
    votes = read_votes(write(wide(row)), **WIDE)
    assert votes.n.size == 30
    (finding,) = votes.findings
    assert finding.code == code and what in finding.message and "t.csv:32" in finding.where and cell in finding.where
    with pytest.raises(InputError, match=code):
        read_votes(write(wide(row)), strict=True, **WIDE)


def test_too_many_bad_rows_are_refused(write):
    with pytest.raises(InputError, match="TOO-MANY-BAD-ROWS.*3 of 3 rows.*no votes were cast"):
        read_votes(write(wide(good=[f"m,p{i},B,0,0,0,0,0,0,1" for i in range(3)])), **WIDE)


def test_samples_without_an_answer_must_be_named(write):
    with pytest.raises(InputError, match="name the column of samples without an answer"):
        read_votes(write(wide()), **{**WIDE, "none": None})


def test_a_repeated_problem_is_refused_with_both_lines(write):
    with pytest.raises(InputError, match=r"REPEAT-PROBLEM .*t\.csv:32 problem=p3 - .*t\.csv:5 - add the column"):
        read_votes(write(wide("m,p3,B,0,2,0,0,2,2,1")), **WIDE)


def test_rows_without_votes_are_set_aside_under_one_finding(write):
    gone = [f"z,q{i},B,,,,,8,5,0" for i in range(20)]
    votes = read_votes(write(wide(*gone)), available="there", **WIDE)
    (finding,) = votes.findings
    assert (finding.code, finding.grade) == ("VOTES-UNAVAILABLE", "info") and "20 of 50 rows" in finding.message
    assert votes.keys == (("m",),)
    with pytest.raises(InputError, match="no row holds votes"):
        read_votes(write(wide(*gone, good=[])), available="there", **WIDE)


def test_an_odd_availability_is_a_fault(write):
    votes = read_votes(write(wide("m,x,B,0,2,0,0,2,2,maybe")), available="there", **WIDE)
    assert votes.findings[0].message == "neither 0 nor 1" and "there=maybe" in votes.findings[0].where


DOUBTS = {
    "one problem": ("z,p1,B,1,2,1,0,4,2,1", "MODEL-ONE-PROBLEM"),
    "none right": ("z,p1,B,4,0,0,0,4,0,1", "MODEL-ALL-ZERO"),
    "all right": ("z,p1,B,0,4,0,0,4,4,1", "MODEL-ALL-ONE"),
    "one vote": ("z,p1,B,0,1,0,0,1,1,1", "MODEL-ONE-VOTE"),
}


@pytest.mark.parametrize(("row", "code"), DOUBTS.values(), ids=DOUBTS.keys())
def test_a_doubtful_model_is_remarked_on(write, row, code):
    votes = read_votes(write(wide(row)), **WIDE)
    assert code in codes(votes) and {finding.where for finding in votes.findings} == {"z"}


def test_long_table_with_a_flag(write):
    rows = ["m,p,12,5,1,", "m,p,13,2,0,", "m,p,,1,0,", "m,q,7,3,0,", "m,q,9,3,0,"]
    votes = read_votes(write(long(*rows)), is_correct="right", **LONG)
    assert votes.answers == () and votes.n.tolist() == [8, 6] and votes.n_none.tolist() == [1, 0]
    assert votes.counts.tolist() == [[5, 2], [3, 3]] and votes.correct.tolist() == [0, -1]
    assert votes.majority.tolist() == [1.0, 0.0]


def test_long_table_of_single_samples_equals_its_counts(write):
    answers = {"p": ["12"] * 2 + ["13"] * 5 + ["none"], "q": ["1"]}
    single = [f"m,{p},{a},1,,{12 if p == 'p' else 2}" for p, said in answers.items() for a in said]
    summed = ["m,p,12,2,,12", "m,p,13,5,,12", "m,p,,1,,12", "m,q,1,1,,2"]
    each = read_votes(
        write(long(*single)), model="model", problem="problem", answer="answer", none="none", target="target"
    )
    votes = read_votes(write(long(*summed), "s.csv"), target="target", **LONG)
    assert each.digest(0) == votes.digest(0)
    assert votes.counts.tolist() == [[5, 2], [1, 0]] and votes.correct.tolist() == [1, -1]


LONG_REFUSED = {
    "two right answers": (["m,p,1,2,1,", "m,p,2,1,1,"], "ANSWER-CONTRADICTED .*t.csv:3 - the right answer is '2' here"),
    "repeated answer": (["m,p,1,2,1,", "m,p,1,2,1,"], r"REPEAT-ANSWER .*t.csv:3 answer=1 - .*t.csv:2"),
    "silence is right": (["m,p,,2,1,", "m,p,2,1,0,"], "a sample without an answer is marked right"),
    "no votes": (["m,p,1,0,1,", "m,p,2,0,0,"], "no votes were cast on this problem"),
}


@pytest.mark.parametrize(("rows", "message"), LONG_REFUSED.values(), ids=LONG_REFUSED.keys())
def test_contradictory_long_tables_are_refused(write, rows, message):
    with pytest.raises(InputError, match=message):
        read_votes(write(long(*rows)), is_correct="right", **LONG)


def test_an_answer_both_right_and_wrong_is_refused(write):
    with pytest.raises(
        InputError, match="ANSWER-CONTRADICTED .*t.csv:3 - the answer '1' is right in one row and wrong"
    ):
        read_votes(write(long("m,p,1,1,1,", "m,p,1,1,0,")), is_correct="right", **{**LONG, "count": None})


def test_a_target_that_varies_within_a_problem_is_refused(write):
    with pytest.raises(InputError, match="ANSWER-CONTRADICTED .*'7' here but '6' elsewhere"):
        read_votes(write(long("m,p,6,1,,6", "m,p,7,1,,7")), target="target", **LONG)


OPTIONS = {
    "neither form": ({"model": "model", "problem": "problem"}, "either the columns of votes or the column of answers"),
    "both forms": ({**WIDE, "answer": "there"}, "either the columns of votes or the column of answers"),
    "no target": ({**WIDE, "target": None}, "no column names the right answer"),
    "one answer": ({**WIDE, "votes": ["votes_a"]}, "two or more columns of votes"),
    "one column twice": ({**WIDE, "n": "none"}, "'none' is named for two parts"),
    "count in wide": ({**WIDE, "count": "there"}, "belong to tables with one row per answer"),
    "n in long": ({**LONG, "is_correct": "right", "n": "n"}, "follow from the rows"),
    "no truth in long": (LONG, "either target or is_correct"),
    "share": ({**WIDE, "max_bad_fraction": 2}, "max_bad_fraction"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options_that_do_not_belong_together_are_refused(write, options, message):
    with pytest.raises(InputError, match=message):
        read_votes(write(wide()), **options)


@pytest.mark.skipif(not GPQA.exists(), reason="the shared table of GPQA votes is not beside this checkout")
def test_published_votes_read_whole_and_give_the_known_accuracies():
    votes = read_votes(
        GPQA, model=["model", "run"], problem="problem", votes=[f"votes_{letter}" for letter in "abcd"], target="target",
        n="n", none="votes_none", correct="n_correct", available="votes_available", strict=True,
    )  # fmt: skip
    assert len(votes) == 40 and votes.n.size == 7911 and codes(votes) == ["VOTES-UNAVAILABLE"]

    def mean(values):
        return np.mean([values[votes.rows(i)].mean() for i in range(len(votes))])

    assert mean(votes.n_correct / votes.n) == pytest.approx(0.7455, abs=5e-5)
    assert mean(votes.majority) == pytest.approx(0.7647, abs=1e-4)
    assert mean(votes.n_correct > 0) == pytest.approx(0.9045, abs=5e-5)
