"""Attempts and their door: every bad input is refused, set aside or remarked on, with a code and a place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bayesscale.attempts import Attempts, stop_at, thin
from bayesscale.finding import InputError
from bayesscale.ingest.attempts import read_attempts, read_trials
from bayesscale.ingest.numbers import parse_size

DATA = Path(__file__).parents[1] / "../shared/data/resampling"
JAILBREAKING = DATA / "bon_jailbreaking_text_inverse_sampled.csv"
PYTHIA = DATA / "pythia_checkpoints_gsm8k_math.csv"
OTIS = DATA / "epoch_otis_mock_aime.csv"
needs_data = pytest.mark.skipif(not JAILBREAKING.exists(), reason="the real data is not here")

COUNTS: dict[str, Any] = {"model": "model", "problem": "problem", "n": "n", "correct": "ok"}
VERIFIER: dict[str, Any] = COUNTS | {"accepted": "acc", "correct_accepted": "both"}
PARTLY: dict[str, Any] = VERIFIER | {"labelled": "lab"}
HEADER = "model,problem,n,ok,acc,lab,both,size,rule,cap"
GOOD = [f"m,p{i},40,{i},{i + 2},{i + 2},{i},7,fixed,40" for i in range(24)]
Write = Callable[..., str]


def changed(options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**options, **changes}


def text(*rows: str, header: str = HEADER, good: list[str] = GOOD) -> str:
    """A table whose `rows` start on line 26, after 24 good ones."""
    return "\n".join([header, *good, *rows]) + "\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: str, name: str = "t.csv") -> str:
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return to_file


def attempts(**changes: Any) -> Attempts:
    """Two models on three problems, rows given out of order."""
    given: dict[str, Any] = {
        "key_names": ("model",),
        "keys": (("a",), ("b",)),
        "model": [1, 0, 0, 0],
        "problems": ("p", "q", "r"),
        "problem": [1, 2, 0, 1],
        "n": [9, 5, 7, 5],
        "n_correct": [4, 1, 2, 1],
    }
    return Attempts(**changed(given, **changes))


def said(data: Attempts) -> list[tuple[str, str, str]]:
    return [(finding.code, finding.grade, finding.where) for finding in data.findings]


def counted(values: np.ndarray | None) -> list[int]:
    assert values is not None
    return values.tolist()


# The value.
def test_rows_are_canonical_and_read_only() -> None:
    data = attempts()
    assert (data.model.tolist(), data.problem.tolist()) == ([0, 0, 0, 1], [0, 1, 2, 1])
    assert (data.n.tolist(), data.n_correct.tolist()) == ([7, 5, 5, 9], [2, 1, 1, 4])
    assert len(data) == 2
    assert (data.rows(0), data.rows(1), data.rows(-1)) == (slice(0, 3), slice(3, 4), slice(3, 4))
    with pytest.raises(ValueError, match="read-only"):
        data.n[0] = 1


def test_patterns_count_equal_problems() -> None:
    n, correct, weight = attempts().patterns(0)
    assert (n.tolist(), correct.tolist(), weight.tolist()) == ([5, 7], [1, 2], [2, 1])


def test_subset_takes_models_with_their_problems_covariates_and_findings(write: Write) -> None:
    path = write(text("k,p1,9,0,0,0,0,8,fixed,40", "z,p1,9,9,9,9,9,9,fixed,40", "z,p2,9,9,9,9,9,9,fixed,40"))
    data = read_attempts(path, covariates="size", **VERIFIER)
    assert [key[0] for key in data.keys] == ["k", "m", "z"]
    part = data.subset([2, 0])
    assert part.keys == (("z",), ("k",))
    assert part.problems == ("p1", "p2")
    assert part.covariates["size"].tolist() == [9, 8]
    assert counted(part.n_accepted) == [9, 9, 0]
    assert {finding.where for finding in part.findings} == {"z", "k"}
    assert part.digest(1) == data.digest(0)
    assert data.subset(np.array([False, True, False])).findings == ()
    assert data.subset(slice(1, None)).keys == (("m",), ("z",))
    with pytest.raises(InputError, match="there are no models"):
        data.subset([])


def test_digest_sees_the_data_and_not_its_surroundings() -> None:
    reference = attempts().digest(0)
    assert attempts(n=[8, 5, 7, 5], n_correct=[0, 1, 2, 1]).digest(0) == reference
    relabelled = attempts(problems=("r", "q", "p"), problem=[1, 0, 2, 1])
    assert relabelled.digest(0) == reference
    differing = [
        attempts(n=[9, 6, 7, 5]),
        attempts(n_correct=[4, 1, 3, 1]),
        attempts(problems=("p", "q", "s")),
        attempts(keys=(("c",), ("b",))),
        attempts(stopping="capped", cap=10),
        attempts(covariates={"size": [1, 2]}),
        attempts(n_accepted=[9, 5, 7, 5], n_correct_accepted=[4, 1, 2, 1]),
    ]
    assert len({reference, *(other.digest(0) for other in differing)}) == len(differing) + 1


def test_frames_go_out_and_come_back() -> None:
    data = attempts(n_accepted=[5, 3, 4, 2], n_correct_accepted=[4, 1, 2, 1], covariates={"size": [1.5, 2]})
    frame = data.to_frame().sample(frac=1, random_state=1)
    back = Attempts.from_frame(
        frame, model="model", problem="problem", n="n", correct="n_correct", accepted="n_accepted",
        correct_accepted="n_correct_accepted", covariates=["size"],
    )  # fmt: skip
    assert [back.digest(i) for i in range(2)] == [data.digest(i) for i in range(2)]


REFUSED_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "no-models": ({"keys": ()}, "there are no models"),
    "key-not-text": ({"keys": ((1,), ("b",))}, "one text label for each"),
    "same-key": ({"keys": (("a",), ("a",))}, "two models have the same key"),
    "same-problem-label": ({"problems": ("p", "p", "r")}, "distinct text labels"),
    "shape": ({"n": [9, 5, 7]}, r"n must have shape \(4,\), got \(3,\)"),
    "fractional": ({"n_correct": [0.5, 1, 2, 1]}, "whole numbers"),
    "negative": ({"n_correct": [-1, 1, 2, 1]}, "whole numbers"),
    "index": ({"problem": [1, 3, 0, 1]}, "problem index points beyond the 3 labels"),
    "no-rows": ({"model": [0, 0, 0, 0], "problem": [0, 1, 2, 0]}, "b - the model has no rows"),
    "repeat": ({"problem": [1, 2, 0, 0]}, "a problem=p - two rows have this model and problem"),
    "no-samples": ({"n": [0, 5, 7, 5], "n_correct": [0, 1, 2, 1]}, "b problem=q - no samples, got n=0"),
    "too-many-correct": ({"n": [3, 5, 7, 5]}, "more correct samples than samples, got n=3, n_correct=4"),
    "half-a-verifier": ({"n_accepted": [9, 5, 7, 5]}, "needs both n_accepted and n_correct_accepted"),
    "covariate": ({"covariates": {"size": [1, np.nan]}}, "covariate size must hold one finite number"),
    "design": ({"stopping": "sometimes"}, "stopping must be one of fixed, first_success, batch, capped"),
    "cap-of-fixed": ({"cap": 10}, "so there is no cap"),
    "no-cap": ({"stopping": "capped"}, "stopping capped needs the cap"),
    "cap-zero": ({"stopping": "capped", "cap": 0}, "whole number from 1 upwards, got 0"),
    "batch-of-fixed": ({"batch": 2}, "a batch of 2 does not belong to stopping fixed"),
    "above-cap": ({"stopping": "capped", "cap": 8}, "b problem=q - more samples than the cap"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED_VALUES.values(), ids=REFUSED_VALUES.keys())
def test_refused_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attempts(**changes)


# Rows that are set aside: options, row, code, and what the finding says.
SET_ASIDE: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "more-correct-than-samples": (COUNTS, "m,x,9,10,0,0,0,7,,", "ROW-COUNT", "ok=10: more correct samples than samples"),
    "no-samples": (COUNTS, "m,x,0,0,0,0,0,7,,", "ROW-COUNT", "n=0: no samples (delete the row"),
    "negative": (COUNTS, "m,x,9,-1,0,0,0,7,,", "ROW-COUNT", "ok=-1: a negative count"),
    "fractional": (COUNTS, "m,x,9,0.5,0,0,0,7,,", "ROW-COUNT", "ok=0.5: a fractional count (give whole counts"),
    "nan": (COUNTS, "m,x,9,NaN,0,0,0,7,,", "ROW-NUMBER", "ok=NaN: NaN"),
    "missing": (COUNTS, "m,x,,0,0,0,0,7,,", "ROW-NUMBER", "n=: missing"),
    "above-2-53": (COUNTS, f"m,x,{2**53 + 1},0,0,0,0,7,,", "ROW-NUMBER", "an integer above 2^53"),
    "above-2-53-exponent": (COUNTS, "m,x,1e17,0,0,0,0,7,,", "ROW-COUNT", "n=1e17: a count above 2^53"),
    "no-problem": (COUNTS, "m,,9,1,0,0,0,7,,", "ROW-KEY", "problem=: missing"),
    "no-model": (COUNTS, ",x,9,1,0,0,0,7,,", "ROW-KEY", "model=: missing"),
    "ragged": (COUNTS, "m,x,9,1", "ROW-FIELDS", "the header has 10 fields, the row 4"),
    "accepted-above-n": (VERIFIER, "m,x,9,1,10,10,1,7,,", "ROW-COUNT", "acc=10: more accepted samples than samples"),
    "correct-accepted-above-accepted": (
        VERIFIER, "m,x,9,5,3,3,4,7,,", "ROW-COUNT", "both=4: more correct accepted samples than accepted ones",
    ),
    "correct-accepted-above-correct": (
        VERIFIER, "m,x,9,2,4,4,3,7,,", "ROW-COUNT", "both=3: more correct accepted samples than correct ones",
    ),
    "too-many-correct-rejected": (
        VERIFIER, "m,x,9,8,4,4,2,7,,", "ROW-COUNT", "ok=8: more correct samples among the rejected than rejected samples",
    ),
    "labelled-above-accepted": (
        PARTLY, "m,x,9,2,4,5,2,7,,", "ROW-COUNT", "lab=5: more labelled samples than accepted ones",
    ),
    "correct-accepted-above-labelled": (
        PARTLY, "m,x,9,5,4,2,3,7,,", "ROW-COUNT", "both=3: more correct accepted samples than labelled accepted ones",
    ),
    "covariate-word": (COUNTS | {"covariates": ["size"]}, "k,x,9,1,0,0,0,huge,,", "ROW-NUMBER", "size=huge: not a number"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "row", "code", "message"), SET_ASIDE.values(), ids=SET_ASIDE.keys())
def test_row_set_aside(write: Write, options: dict[str, Any], row: str, code: str, message: str) -> None:
    path = write(text(row))
    data = read_attempts(path, **options)
    assert data.n.tolist() == [40] * 24
    (finding,) = (finding for finding in data.findings if finding.code.startswith("ROW"))
    assert (finding.code, finding.grade) == (code, "warn")
    assert f"{path}:26" in finding.where
    assert message in str(finding)
    with pytest.raises(InputError, match=rf"^{code} .*t.csv:26"):
        read_attempts(path, strict=True, **options)


def test_unlabelled_acceptances_leave_the_correct_count_alone(write: Write) -> None:
    data = read_attempts(write(text("m,x,9,2,4,3,3,7,,")), **PARTLY)
    assert counted(data.n_labelled)[-1] == 3
    assert not data.findings


def test_n_zero_everywhere_is_refused(write: Write) -> None:
    rows = [row.replace(",40,", ",0,", 1) for row in GOOD[:1]]
    with pytest.raises(InputError, match=r"TOO-MANY-BAD-ROWS .*:2 n=0 - 1 of 1 rows cannot be used .* no samples"):
        read_attempts(write(text(good=rows)), **COUNTS)


def test_a_model_that_loses_all_its_rows_is_named(write: Write) -> None:
    data = read_attempts(write(text("gone,x,0,0,0,0,0,7,,")), **COUNTS)
    assert ("MODEL-LOST", "warn", "gone") in said(data)


# Doubtful models are kept.
DOUBTS: dict[str, tuple[list[str], str, str]] = {
    "one-problem": (["d,p1,9,3,,,,7,,"], "MODEL-ONE-PROBLEM", "how problems differ cannot be learned"),
    "all-zero": (["d,p1,9,0,,,,7,,", "d,p2,9,0,,,,7,,"], "MODEL-ALL-ZERO", "neither their mean nor their tail"),
    "all-one": (["d,p1,9,9,,,,7,,", "d,p2,8,8,,,,7,,"], "MODEL-ALL-ONE", "how rates spread below 1"),
    "one-sample": (["d,p1,1,1,,,,7,,", "d,p2,1,0,,,,7,,"], "MODEL-ONE-SAMPLE", "only the mean success rate"),
    "stopped": (
        ["d,p1,90,0,,,,7,,", "d,p2,90,0,,,,7,,", "d,p3,4,1,,,,7,,", "d,p4,30,1,,,,7,,"], "MODEL-LOOKS-STOPPED", "--stopping",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "code", "advice"), DOUBTS.values(), ids=DOUBTS.keys())
def test_doubtful_model_is_kept(write: Write, rows: list[str], code: str, advice: str) -> None:
    data = read_attempts(write(text(*rows)), **COUNTS)
    assert data.keys == (("d",), ("m",))
    assert said(data) == [(code, "warn", "d")]
    assert advice in data.findings[0].advice


def test_labels_stay_text(write: Write) -> None:
    labels = ["001", "1", "1e5", "NA", "null", "nan", "TRUE"]
    rows = [f"{label},{other},9,{i},,,,7,," for label in labels for i, other in enumerate(labels)]
    data = read_attempts(write(text(good=rows)), **COUNTS)
    assert {key[0] for key in data.keys} == set(data.problems) == set(labels)
    assert data.model_name(0) in ("1", "001")
    assert not data.findings


def test_several_columns_name_a_model_and_several_files_are_joined(write: Write) -> None:
    one, two = write(text()), write(text(good=[row.replace("m,", "k,") for row in GOOD]), "two.csv")
    data = read_attempts([one, two], **changed(COUNTS, model=["model", "rule"]))
    assert data.keys == (("k", "fixed"), ("m", "fixed"))
    assert data.model_name(1) == "m / fixed"


def test_row_order_makes_no_difference(write: Write) -> None:
    first = read_attempts(write(text()), **VERIFIER)
    assert read_attempts(write(text(good=GOOD[::-1])), **VERIFIER).digest(0) == first.digest(0)


def test_repeated_problem_names_both_lines(write: Write) -> None:
    path = write(text("m,p3,9,1,,,,7,,"))
    with pytest.raises(InputError) as caught:
        read_attempts(path, **COUNTS)
    message = (
        f"REPEAT-PROBLEM {path}:26 problem=p3 - the model already has this problem, from {path}:5 - add the column"
    )
    assert message in str(caught.value)
    assert "such as the run, to --model" in str(caught.value)


# Covariates.
@pytest.mark.parametrize(
    ("spelled", "value"), [("1.4B", 1.4e9), ("200b", 2e11), ("70M", 7e7), ("2 K", 2e3), ("1.5T", 1.5e12), ("3e4", 3e4)]
)
def test_sizes(spelled: str, value: float) -> None:
    assert parse_size(spelled).value == value


@pytest.mark.parametrize("spelled", ["B", "1e3B", "1.4BB", "", "nan", "1,4B"])
def test_not_sizes(spelled: str) -> None:
    assert parse_size(spelled).what


def test_sizes_are_remarked_on(write: Write) -> None:
    path = write(text("k,p1,9,1,,,,1.4B,,", "k,p2,9,1,,,,1.4B,,"))
    data = read_attempts(path, covariates=["size"], **COUNTS)
    assert data.covariates["size"].tolist() == [1.4e9, 7]
    assert said(data) == [("COVARIATE-SIZES", "info", "size")]
    assert data.findings[0].message == "read 1.4B as 1.4e+09"


@pytest.mark.parametrize(("value", "shown"), [("8", "8"), ("hard", "hard")])
def test_a_covariate_that_varies_by_problem_is_refused(write: Write, value: str, shown: str) -> None:
    path = write(text(f"m,x,9,1,,,,{value},,"))
    with pytest.raises(
        InputError, match=rf"COVARIATE-NOT-CONSTANT .*:26 - size is {shown} here but 7 in .*:2 - .*add size to"
    ):
        read_attempts(path, covariates=["size"], **COUNTS)


def test_equal_numbers_may_be_spelled_differently(write: Write) -> None:
    data = read_attempts(write(text("m,x,9,1,,,,7.0,,")), covariates=["size"], **COUNTS)
    assert data.covariates["size"].tolist() == [7]


# Stopping designs: options, row, and what the refusal says; the good rows stop at their first success or at 40.
STOPPED = [*(f"m,p{i},{i},1,,,,7,first_success,40" for i in range(1, 24)), "m,p24,40,0,,,,7,first_success,40"]
FIRST: dict[str, Any] = COUNTS | {"stopping": "first_success", "cap": 40}
BATCHES = [*(f"m,p{i},{10 * (i % 4 + 1)},{i % 10 + 1},,,,7,batch,40" for i in range(23)), "m,p24,40,0,,,,7,batch,40"]
BATCH: dict[str, Any] = COUNTS | {"stopping": "batch", "batch": 10, "cap": 40}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], list[str], str, str]] = {
    "above-cap": (FIRST, STOPPED, "m,x,41,1,,,,7,,", "more samples than the cap, got n=41 with 1"),
    "capped-above-cap": (
        COUNTS | {"stopping": "capped", "cap": 40}, STOPPED, "m,x,41,9,,,,7,,", "more samples than the cap",
    ),
    "two-successes": (FIRST, STOPPED, "m,x,9,2,,,,7,,", "more successes than the last batch holds"),
    "censored-below-cap": (FIRST, STOPPED, "m,x,39,0,,,,7,,", "no success before the cap, though sampling goes on to the f"),
    "censored-without-cap": (FIRST | {"cap": None}, STOPPED[:-1], "m,x,39,0,,,,7,,", "no success before the cap"),
    "batch-split": (BATCH, BATCHES, "m,x,15,1,,,,7,,", "no multiple of the batch of 10"),
    "batch-overfull": (BATCH, BATCHES, "m,x,20,11,,,,7,,", "more successes than the last batch holds"),
    "batch-censored": (BATCH, BATCHES, "m,x,20,0,,,,7,,", "goes on to the first batch of 10 with a success"),
    "cap-column": (FIRST | {"cap": "cap"}, STOPPED, "m,x,30,0,,,,7,,40", "no success before the cap"),
    "stopping-column": (
        FIRST | {"stopping": "rule"}, STOPPED, "m,x,9,2,,,,7,First_Success,40", "under stopping first_success: more succ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "good", "row", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_counts_that_contradict_their_design(
    write: Write, options: dict[str, Any], good: list[str], row: str, message: str
) -> None:
    assert not read_attempts(write(text(good=good)), **options).findings
    line = len(good) + 2
    with pytest.raises(InputError, match=f"STOPPING-CONTRADICTED .*:{line} - .*{message}"):
        read_attempts(write(text(row, good=good)), **options)


def test_the_last_batch_may_be_cut_by_the_cap(write: Write) -> None:
    rows = ["m,p1,10,3,,,,7,,", "m,p2,25,0,,,,7,,", "m,p3,25,5,,,,7,,"]
    data = read_attempts(write(text(good=rows)), **changed(BATCH, cap=25))
    assert (data.stopping, data.cap, data.batch) == ("batch", 25, 10)
    with pytest.raises(InputError, match="more successes than the last batch holds"):
        read_attempts(write(text("m,p4,25,6,,,,7,,", good=rows)), **changed(BATCH, cap=25))


def test_sampling_ends_at_an_acceptance_where_there_is_a_verifier(write: Write) -> None:
    rows = ["m,p1,3,0,1,1,0,7,,", "m,p2,9,2,1,1,1,7,,", "m,p3,40,1,0,0,0,7,,"]
    options = VERIFIER | {"stopping": "first_success", "cap": 40}
    assert read_attempts(write(text(good=rows)), **options).n_correct.tolist() == [0, 2, 1]
    with pytest.raises(InputError, match=r":5 - .*more successes than the last batch holds.*with 2"):
        read_attempts(write(text("m,p4,9,2,2,2,2,7,,", good=rows)), **options)


CAPS: dict[str, tuple[dict[str, Any], str, str]] = {
    "mixed-design": (FIRST | {"stopping": "rule"}, "m,x,9,1,,,,7,fixed,40", r":26 - stopping is 'fixed' here but 'first_s"),
    "unknown-design": (COUNTS | {"stopping": "size"}, "m,x,9,1,,,,7,,", "stopping must be one of fixed, .*got '7'"),
    "cap-missing": (FIRST | {"cap": "cap"}, "m,x,9,1,,,,7,,", r":26 - the cap is missing here but 40 in .*:2"),
    "cap-fractional": (FIRST | {"cap": "cap"}, "m,x,9,1,,,,7,,40.5", ":26 - the cap must be a whole number"),
    "censored-at-another-cap": (
        FIRST | {"cap": "cap"}, "m,x,30,0,,,,7,,30", r":26 - .*without success at the cap of 30 here, but the cap is 40 in",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "row", "message"), CAPS.values(), ids=CAPS.keys())
def test_one_design_and_one_cap(write: Write, options: dict[str, Any], row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_attempts(write(text(row, good=STOPPED)), **options)


def test_a_smaller_cap_that_censored_nothing_gives_way(write: Write) -> None:
    data = read_attempts(write(text("m,x,30,1,,,,7,,30", good=STOPPED)), **changed(FIRST, cap="cap"))
    assert data.cap == 40
    assert [code for code, _, _ in said(data)] == ["STOPPING-CAPS"]
    assert "30 here but 40 elsewhere" in data.findings[0].message


def test_an_empty_cap_column_is_no_cap(write: Write) -> None:
    rows = [row.rsplit(",", 1)[0] + "," for row in GOOD]
    data = read_attempts(write(text(good=rows)), **changed(COUNTS, stopping="rule", cap="cap"))
    assert (data.stopping, data.cap) == ("fixed", None)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "half-a-verifier": (COUNTS | {"accepted": "acc"}, "needs both accepted and correct_accepted"),
    "labels-alone": (COUNTS | {"labelled": "lab"}, "needs both accepted and correct_accepted"),
    "column-twice": (COUNTS | {"problem": "n"}, "column 'n' is named for two parts"),
    "cap-of-fixed": (COUNTS | {"cap": "cap"}, "so there is no cap - leave the cap out, or say how sampling stopped"),
    "batch-of-fixed": (COUNTS | {"batch": 3}, "a batch of 3 does not belong to stopping fixed"),
    "bad-fraction": (COUNTS | {"max_bad_fraction": 5}, "max_bad_fraction must lie in"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_refused_options(write: Write, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"OPTIONS - .*{message}"):
        read_attempts(write(text()), **options)


# Long tables of samples.
TRIALS: dict[str, Any] = {"model": "model", "problem": "problem", "outcome": "ok"}
SPELLED = ["1", "0", "true", "False", "TRUE", "0.0", "1.0", "0", "0", "0"]
LONG = [f"m,p{i % 3},{spelled},{i % 2},{i}" for i, spelled in enumerate(SPELLED * 3)]


def long_table(*rows: str) -> str:
    return text(*rows, header="model,problem,ok,acc,id", good=LONG)


def test_trials_are_counted(write: Write) -> None:
    data = read_trials(write(long_table()), accepted="acc", sample="id", **TRIALS)
    rows = [row.split(",") for row in LONG]
    by_problem = [[row for row in rows if row[1] == f"p{i}"] for i in range(3)]
    right = [[row[2].lower() in ("1", "1.0", "true") for row in group] for group in by_problem]
    passed = [[row[3] == "1" for row in group] for group in by_problem]
    both = [[r and a for r, a in zip(*pair, strict=True)] for pair in zip(right, passed, strict=True)]
    assert data.n.tolist() == [10, 10, 10]
    assert data.n_correct.tolist() == [sum(group) for group in right]
    assert counted(data.n_accepted) == counted(data.n_labelled) == [sum(group) for group in passed]
    assert counted(data.n_correct_accepted) == [sum(group) for group in both]


@pytest.mark.parametrize("outcome", ["0.5", "2", "-1", "yes"])
def test_an_outcome_is_zero_or_one(write: Write, outcome: str) -> None:
    data = read_trials(write(long_table(f"m,p0,{outcome},0,99")), **TRIALS)
    assert data.n.tolist() == [10, 10, 10]
    (finding,) = data.findings
    assert f":32 ok={outcome}: neither 0 nor 1" in str(finding)


def test_a_missing_outcome_is_set_aside(write: Write) -> None:
    (finding,) = read_trials(write(long_table("m,p0,,0,99")), **TRIALS).findings
    assert ":32 ok=: missing" in str(finding)


def test_a_repeated_sample_is_refused_where_samples_have_names(write: Write) -> None:
    path = write(long_table("m,p0,1,0,0"))
    with pytest.raises(
        InputError, match=r"REPEAT-SAMPLE .*:32 sample=0 - the model already has this sample, from .*:2 "
    ):
        read_trials(path, sample="id", **TRIALS)
    assert read_trials(path, **TRIALS).n.tolist() == [11, 10, 10]


def test_trials_may_be_stopped(write: Write) -> None:
    rows = ["m,p,0,0,1", "m,p,1,0,2", "m,q,0,0,1", "m,q,0,0,2", "m,q,0,0,3"]
    path = write(text(header="model,problem,ok,acc,id", good=rows))
    data = read_trials(path, stopping="first_success", cap=3, **TRIALS)
    assert (data.n.tolist(), data.n_correct.tolist()) == ([2, 3], [1, 0])
    with pytest.raises(InputError, match="STOPPING-CONTRADICTED .*:4 - .*no success before the cap"):
        read_trials(path, stopping="first_success", cap=4, **TRIALS)


# Thinning and stopping earlier.
def many(n: int, correct: int, rows: int, **more: int) -> Attempts:
    """One model with `rows` problems of equal counts."""
    full: dict[str, Any] = {name: np.full(rows, value) for name, value in more.items()}
    return one_model(np.full(rows, n), np.full(rows, correct), **full)


def one_model(n: Any, correct: Any, **more: Any) -> Attempts:
    names = tuple(f"p{i}" for i in range(len(n)))
    return Attempts(("model",), (("m",),), np.zeros(len(n), int), names, np.arange(len(n)), n, correct, **more)


def test_thinning_is_hypergeometric() -> None:
    drawn = thin(many(50, 12, 4000), 10, seed=1)
    assert set(drawn.n.tolist()) == {10}
    observed = np.bincount(drawn.n_correct, minlength=11)
    expected = 4000 * stats.hypergeom.pmf(np.arange(11), 50, 12, 10)
    observed, expected = (np.append(counts[:6], counts[6:].sum()) for counts in (observed, expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_thinning_with_a_verifier_is_multivariate_hypergeometric() -> None:
    drawn = thin(many(40, 14, 6000, n_accepted=18, n_correct_accepted=11), 12, seed=3)
    assert drawn.n_accepted is not None and drawn.n_correct_accepted is not None and drawn.n_labelled is not None
    both, correct = drawn.n_correct_accepted, drawn.n_correct
    cells = np.stack([both, drawn.n_accepted - both, correct - both, 12 - drawn.n_accepted - correct + both])
    law = stats.multivariate_hypergeom([11, 7, 3, 19], 12)
    np.testing.assert_allclose(cells.mean(axis=1), law.mean(), atol=5 * 1.7 / np.sqrt(6000))
    np.testing.assert_allclose(np.cov(cells), law.cov(), atol=0.15)
    np.testing.assert_array_equal(drawn.n_labelled, drawn.n_accepted)


def test_thinning_keeps_short_rows_and_ignores_neighbours() -> None:
    data = attempts()
    assert thin(data, 6, 0).n.tolist() == [6, 5, 5, 6]
    assert thin(data, 9, 0).n_correct.tolist() == data.n_correct.tolist()
    big = many(500, 100, 50)
    both = Attempts(
        ("model",), (("l",), ("m",)), np.append(np.ones(50, int), 0), big.problems, np.append(big.problem, 0),
        np.append(big.n, 9), np.append(big.n_correct, 1),
    )  # fmt: skip
    np.testing.assert_array_equal(thin(both, 40, 7).subset([1]).n_correct, thin(big, 40, 7).n_correct)
    assert (thin(big, 40, 8).n_correct != thin(big, 40, 7).n_correct).any()


def test_what_cannot_be_thinned() -> None:
    with pytest.raises(InputError, match=r"THIN - under stopping capped .* - stop_at"):
        thin(attempts(stopping="capped", cap=10), 3, 0)
    with pytest.raises(InputError, match="truth of some accepted samples is unknown"):
        thin(many(9, 3, 2, n_accepted=4, n_labelled=3, n_correct_accepted=2), 3, 0)
    with pytest.raises(InputError, match="whole number from 1 upwards"):
        thin(attempts(), 0, 0)
    with pytest.raises(InputError, match="10\\^9 or more"):
        thin(many(10**9, 3, 2), 3, 0)


def stopped(samples: np.ndarray, batch: int, cap: int) -> Attempts:
    """What sampling row by row in batches, one sample at a time, would have logged."""
    n, correct = [], []
    for row in samples:
        end = batch
        while not row[end - batch : end].any() and end < cap:
            end += batch
        n.append(end)
        correct.append(row[:end].sum())
    design = "batch" if batch > 1 else "first_success"
    return one_model(n, correct, stopping=design, cap=cap, batch=batch)


@pytest.mark.parametrize("batch", [1, 5])
def test_stopping_earlier_is_what_a_smaller_cap_would_have_logged(batch: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.random((300, 60)) < rng.beta(0.3, 6, size=(300, 1))
    long = stopped(samples, batch, 60)
    for budget in (5, 20, 60):
        assert stop_at(long, budget).digest(0) == stopped(samples, batch, budget).digest(0)
    assert stop_at(long, 100).digest(0) == long.digest(0)


def test_what_cannot_be_stopped_earlier() -> None:
    with pytest.raises(InputError, match="BUDGET - stopping is fixed, .* - thin"):
        stop_at(attempts(), 3)
    data = stopped(np.zeros((2, 20), bool), 5, 20)
    for budget in (7, 0, -5):
        with pytest.raises(InputError, match=f"multiple of the batch of 5, got {budget}"):
            stop_at(data, budget)
    judged = many(9, 2, 2, n_accepted=1, n_correct_accepted=1)
    judged = replace(judged, stopping="first_success", cap=9)
    with pytest.raises(InputError, match="before or after the budget"):
        stop_at(judged, 4)


def test_a_cut_verifier_row_has_no_acceptance() -> None:
    judged = many(9, 1, 2, n_accepted=1, n_correct_accepted=1)
    cut = stop_at(replace(judged, stopping="first_success", cap=9), 4)
    counts = (cut.n, cut.n_correct, cut.n_accepted, cut.n_labelled, cut.n_correct_accepted)
    assert [counted(values) for values in counts] == [[4, 4], *([[0, 0]] * 4)]


# Real logs.
@needs_data
def test_the_jailbreaking_log_is_read_under_its_stopping_rule() -> None:
    options: dict[str, Any] = {"model": ["model", "benchmark"], "problem": "problem", "n": "n", "correct": "n_success"}
    data = read_attempts(JAILBREAKING, stopping="batch", batch=60, cap="cap", **options)
    assert (len(data), data.n.size, data.cap, data.batch) == (7, 1113, 10020, 60)
    assert [code for code, _, _ in said(data)] == ["STOPPING-CAPS"]
    solved = {data.keys[i][0]: (data.n_correct[data.rows(i)] > 0).mean() for i in range(7)}
    # The shares solved at the cap that the upstream authors' data gives for these models.
    expected = {"Claude 3.5 Opus": 0.950, "GPT4o": 0.899, "Gemini 1.5 Flash": 0.654, "Llama 3 8B IT": 1.0}
    for name, share in expected.items():
        assert solved[name] == pytest.approx(share, abs=5e-4)
    early = stop_at(data, 600)
    assert early.cap == 600 and early.n.max() == 600
    assert int((early.n_correct > 0).sum()) == int(((data.n <= 600) & (data.n_correct > 0)).sum())
    with pytest.raises(InputError, match="STOPPING-CONTRADICTED"):
        read_attempts(JAILBREAKING, stopping="first_success", cap="cap", **options)
    naive = read_attempts(JAILBREAKING, **options)
    assert {code for code, _, _ in said(naive)} == {"MODEL-LOOKS-STOPPED"}


@needs_data
def test_the_checkpoint_log_is_read_with_its_sizes() -> None:
    options: dict[str, Any] = {"problem": "problem", "n": "n", "correct": "n_correct"}
    data = read_attempts(PYTHIA, model=["model", "benchmark"], covariates=["params", "train_tokens"], **options)
    assert len(data) == 81 + 72
    assert data.n.sum() == pytest.approx(312.8e6, rel=1e-3)
    assert (data.n_correct == 0).mean() == pytest.approx(0.67, abs=0.005)
    assert {code for code, _, _ in said(data)} == {"COVARIATE-SIZES", "MODEL-ALL-ZERO"}
    i = data.keys.index(("Pythia_1.4B_200B", "GSM8K"))
    assert (data.covariates["params"][i], data.covariates["train_tokens"][i]) == (1.4e9, 2e11)
    with pytest.raises(InputError, match="COVARIATE-NOT-CONSTANT .*level.*add level to --model"):
        read_attempts(PYTHIA, model=["model", "benchmark"], covariates=["level"], **options)


@needs_data
def test_runs_of_one_model_are_told_apart() -> None:
    options: dict[str, Any] = {"problem": "problem", "n": "n", "correct": "n_correct"}
    with pytest.raises(InputError, match="REPEAT-PROBLEM .*add the column that tells the two apart, such as the run"):
        read_attempts(OTIS, model="model", **options)
    data = read_attempts(OTIS, model=["model", "run"], **options)
    assert len({key[0] for key in data.keys}) == 81
    assert len(data.problems) == 45
