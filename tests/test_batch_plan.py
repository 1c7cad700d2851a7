"""Plans: what a chunk's id depends on, what another plan differs in, and what is read back."""

import json
import subprocess
import sys

import pytest
from batch_stub import stub_plan

from bayesscale.batch.place import Place, agree, make, read_plan
from bayesscale.batch.plan import changes, order_in, plan_of, plan_text
from bayesscale.finding import InputError


def test_every_curve_is_in_one_chunk_of_each_law_and_widths_do_not_mix():
    plan = stub_plan(curves=25, size=4)
    for law in ("one", "two"):
        own = [chunk for chunk in plan.chunks if chunk.law == law]
        assert sorted(i for chunk in own for i in chunk.curves) == list(range(25))
        assert max(len(chunk.units) for chunk in own) == 4
        assert all({8 if i % 3 else 12 for i in chunk.curves} == {chunk.width} for chunk in own)
    assert len({chunk.id for chunk in plan.chunks}) == len(plan.chunks) and plan.fits == 50


def test_an_id_depends_on_what_the_result_does_and_on_nothing_else():
    plan = stub_plan()
    same = stub_plan(laws={"one": "one", "two": "two", "three": "three"})
    assert [c.id for c in plan.chunks] == [c.id for c in same.chunks]  # other laws beside it change nothing
    for other in (stub_plan(seed=1), stub_plan(keep="draws"), stub_plan(laws={"one": "edited", "two": "edited"})):
        assert not {c.id for c in plan.chunks} & {c.id for c in other.chunks}
    [single, *_] = plan.singles(plan.chunks[0])
    assert single.id == stub_plan(curves=1).chunks[0].id


def test_a_plan_read_back_is_the_plan():
    plan = stub_plan()
    assert plan_of(plan_text(plan), "here") == plan


@pytest.mark.parametrize("step", [7, 101])
def test_a_plan_with_any_byte_changed_or_cut_is_refused_or_the_same(step):
    text = plan_text(stub_plan(curves=6))
    for at in range(0, len(text), step):
        for damaged in (text[:at], text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]):
            # What may change unseen is the name of a curve, on which no result depends.
            assert read_ids(damaged) in (["PLAN-DAMAGED"], [c.id for c in stub_plan(curves=6).chunks])


def read_ids(text):
    """The ids of a plan's chunks, or the code it is refused with."""
    try:
        return [chunk.id for chunk in plan_of(text, "here").chunks]
    except InputError as error:
        return [error.finding.code]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (stub_plan(seed=1), "seed: 0 -> 1"),
        (stub_plan(laws={"one": "one"}), "laws: one, two -> one"),
        (stub_plan(laws={"one": "one", "two": "edited"}), "the law two was edited"),
        (stub_plan(sampler={"draws": 2}), "sampler: none -> "),
        (stub_plan(curves=63), "3 curves (c60, ...) are new"),
        (stub_plan(curves=59), "c59 is gone"),
    ],
)
def test_another_plan_is_refused_in_a_sentence_that_names_the_change(other, said, tmp_path):
    place = Place(tmp_path / "out")
    make(place)
    agree(place, stub_plan())
    before = place.plan.read_bytes()
    with pytest.raises(InputError) as refused:
        agree(place, other)
    assert refused.value.finding.code == "PLAN-CHANGED"
    assert said.removesuffix(" -> ") in str(refused.value) and "--overwrite" in str(refused.value)
    assert place.plan.read_bytes() == before


def test_settings_inside_settings_are_named():
    old, new = stub_plan(sampler={"draws": 1, "lanes": 2}), stub_plan(sampler={"draws": 5, "lanes": 2})
    assert changes(old, new) == ["sampler draws: 1 -> 5"]


def test_other_data_under_the_same_name_is_named():
    old = stub_plan(curves=3)
    text = json.loads(plan_text(old))
    text["curves"][1][1] = "0" * 64
    fresh = stub_plan(curves=3)
    new = type(fresh)(fresh.settings, fresh.names, tuple(digest for _, digest in text["curves"]), ())
    assert changes(old, new) == ["c1 holds other data"]


def test_the_order_of_curves_is_no_change_and_the_old_one_holds(tmp_path):
    place = Place(tmp_path / "out")
    make(place)
    agree(place, stub_plan(curves=9))
    shuffled = stub_plan(curves=9, order=[4, 2, 8, 0, 1, 3, 7, 5, 6])
    kept = agree(place, shuffled)
    assert kept.names == stub_plan(curves=9).names
    assert [shuffled.names[i] for i in order_in(kept, shuffled)] == list(kept.names)


def test_a_folder_without_a_plan_is_no_run(tmp_path):
    with pytest.raises(InputError, match="no run of bayesscale fit"):
        read_plan(Place(tmp_path))


def test_plan_store_ledger_and_loop_need_no_jax():
    modules = "plan, store, ledger, lock, loop, scheduler, gather, place, execution, progress"
    code = f"import sys; from bayesscale.batch import {modules}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
