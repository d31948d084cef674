"""Comparisons whose runs take no time."""

import os

import pytest

from hf_accel.comparison import forecast
from hf_accel.comparison import plan as comparison_plan
from hf_accel.comparison import runs as comparison_runs
from hf_accel.comparison.runs import Machine
from tests.support import stub_train
from tests.support.reports import ENVIRONMENT


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    """Runs take no time; gives the folder of the comparison and the list of (variant, seed) that were run so far."""
    calls = tmp_path / "calls.txt"
    monkeypatch.setenv("STUB_CALLS", str(calls))
    for module in (comparison_runs, forecast):  # which a process would do half a second later
        monkeypatch.setattr(module, "run_process", stub_train.run_here)
    monkeypatch.setattr(comparison_plan, "probe_machine", lambda: Machine(ENVIRONMENT, False, "no bf16 here"))
    monkeypatch.setattr(comparison_plan.Plan, "data_fingerprint", lambda *_: os.environ.get("STUB_DATA", "data"))
    monkeypatch.setattr(comparison_plan, "refusals", lambda recipes: [])

    def done() -> list[tuple[str, int]]:
        lines = calls.read_text(encoding="utf-8").splitlines() if calls.is_file() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    return tmp_path / "comparison", done
