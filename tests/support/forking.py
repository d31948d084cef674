"""The process from which tests fork runs: it has imported what they need, so that a run takes a second."""

import multiprocessing
from multiprocessing import forkserver

PRELOADED = [
    "tests.support.killed_runs",
    "tests.support.two_processes",
    "hf_accel.training.build",
    "hf_accel.hub.push",
    "hf_accel.tuning.trial_process",
]


def start_fork_server() -> None:
    """Start it, in the background. The first folder and environment that it sees stay, so a test is too late."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
