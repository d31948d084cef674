"""What bounds a run, from facts."""

from dataclasses import fields, replace

import pytest
import yaml

from hf_accel.config.recipe import load_recipe
from hf_accel.profiling.advice import ADVICE, advice
from hf_accel.profiling.operators import GROUPS, OTHER_GROUP
from hf_accel.profiling.verdict import CAUSES, Facts, verdict
from tests.support.profiles import SETUP

NOTHING = Facts(input=1, network=1, optimizer=1, loop=1, saving=1)
ALONE = {
    "input": {"input": 10},
    "host": {"network": 10, "operator_share": 0.1},
    "compute": {"network": 10, "operator_share": 1.0, "compute_share": 0.9},
    "memory bandwidth": {"network": 10, "operator_share": 1.0, "compute_share": 0.1},
    "optimizer": {"optimizer": 10},
    "saving": {"saving": 10},
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_alone_is_the_verdict(cause):
    found = verdict(replace(NOTHING, **ALONE[cause]))
    assert found.bound == cause
    assert next(iter(found.shares)) == cause
    assert cause in found.sentence


@pytest.mark.parametrize("first", CAUSES)
@pytest.mark.parametrize("second", CAUSES)
def test_of_two_equal_causes_none_stands_out(first, second):
    if first == second:
        return
    facts = replace(NOTHING, **_joined(ALONE[first], ALONE[second]))
    found = verdict(facts)
    assert found.bound == "none stands out"
    assert set(list(found.shares)[:2]) == {first, second}
    assert first in found.sentence
    assert second in found.sentence


def _joined(first, second):
    """The facts of a run that has both causes to the same extent."""
    network = [one for one in (first, second) if "network" in one]
    if len(network) < 2:
        return first | second
    # seconds of the host, compute and memory, in one network
    parts = {"host": 0.0, "compute": 0.0, "memory": 0.0}
    for one in network:
        operators = 10 * one["operator_share"]
        parts["host"] += 10 - operators
        parts["compute"] += operators * one.get("compute_share", 1.0)
        parts["memory"] += operators * (1 - one.get("compute_share", 1.0))
    operators = parts["compute"] + parts["memory"]
    return {"network": 20.0, "operator_share": operators / 20, "compute_share": parts["compute"] / operators}


def test_shares_are_of_everything_but_evaluation_and_the_start():
    found = verdict(replace(NOTHING, evaluation=1000, once=1000))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert len(found.remarks) == 2
    assert verdict(NOTHING).remarks == []


@pytest.mark.parametrize(("used", "is_said"), [(1.0, True), (3.9, False), (None, False)])
def test_idle_cores_are_mentioned(used, is_said):
    assert (
        any("1.00 of 4 cores" in remark for remark in verdict(replace(NOTHING, cores_used=used, cores=4)).remarks)
        == is_said
    )


def test_more_of_a_cause_never_takes_its_verdict_away():
    facts = replace(NOTHING, input=2)
    bounds = [verdict(replace(facts, input=2.0**power)).bound for power in range(8)]
    assert bounds == sorted(bounds, key=lambda bound: bound == "input")
    assert bounds[-1] == "input"


def test_resnet50_is_bound_by_memory_where_the_matrix_unit_is_fast_and_by_compute_where_it_is_not():
    """A step of 850 ms on a CPU with AMX: half of the convolutions' time is in layers below its ridge of 100 FLOP/byte."""
    amx = Facts(input=0, network=800, optimizer=20, loop=5, saving=0, operator_share=1.0, compute_share=0.26)
    avx512 = replace(amx, compute_share=0.75)
    assert verdict(amx).bound == "memory bandwidth"
    assert verdict(avx512).bound == "compute"


def test_a_network_whose_operators_are_not_known_counts_as_compute():
    assert verdict(replace(NOTHING, network=10)).bound == "compute"


def test_nothing_measured_has_no_verdict():
    assert verdict(Facts(0, 0, 0, 0, 0)).bound == "none stands out"


@pytest.mark.parametrize("entry", [entry for entry in ADVICE if "..." not in entry.line], ids=lambda entry: entry.line)
def test_every_line_is_one_that_a_recipe_takes(entry):
    overrides = yaml.safe_load(entry.line)
    recipe = "finetune_text" if "group_by_length" in entry.line else "resnet50_cifar10"
    load_recipe(recipe, overrides=overrides)


def test_every_bound_and_every_kind_of_operator_named_in_the_table_exists():
    kinds = {*GROUPS, OTHER_GROUP}
    assert {what for entry in ADVICE for what in entry.helps} <= {*CAUSES, *kinds}
    for cause in CAUSES:
        assert any(cause in entry.helps for entry in ADVICE), cause


def test_a_line_that_the_recipe_has_is_not_advised():
    lines = {entry.line for entry in advice("input", SETUP)}
    assert "data: {cache: memory}" in lines
    assert "data: {cache: memory}" not in {entry.line for entry in advice("input", replace(SETUP, cache="disk"))}
    assert "training: {bf16: auto}" in {entry.line for entry in advice("compute", SETUP)}
    assert "training: {bf16: auto}" not in {
        entry.line for entry in advice("compute", replace(SETUP, has_native_bf16=False))
    }
    assert len(fields(SETUP)) == 20
