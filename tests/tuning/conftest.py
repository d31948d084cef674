"""Searches whose trials and runs take no time."""

import pytest

from hf_accel.comparison import runs as comparison_runs
from hf_accel.comparison.runs import Machine
from hf_accel.tuning import auto, confirm, engine, trials
from tests.support import made_up_speeds
from tests.support.reports import ENVIRONMENT


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Trials and runs by `tests.support.made_up_speeds`, without pages; gives the list of recipes that were tried so far."""
    done = []

    def run_trial(recipe, folder, limit, forked, tick, **asked):
        done.append(recipe)
        return made_up_speeds.trial(recipe, asked)

    machine = Machine({**ENVIRONMENT, "memory_gib": 16.0}, True, "")
    monkeypatch.setattr(trials, "_run", run_trial)
    monkeypatch.setattr(comparison_runs, "run_process", made_up_speeds.run_here)
    monkeypatch.setattr(comparison_runs, "probe_machine", lambda: machine)
    monkeypatch.setattr(auto, "probe_machine", lambda: machine)
    monkeypatch.setattr(confirm, "write_comparison_page", lambda folder: (folder / "report.html").write_text("a page"))
    monkeypatch.setattr(engine, "write_tuning_page", lambda folder: (folder / "report.html").write_text("a page"))
    monkeypatch.setattr(confirm, "DataFingerprints", lambda: lambda entry, seed: "data")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return done
