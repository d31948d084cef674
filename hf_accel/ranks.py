"""This process among those of a launcher: which of them speaks when a run fails, and how restarted ones find each other.

Launchers of PyTorch (`torchrun`, `accelerate launch`) end all processes of a machine when one of them has failed. So the others
need not say that the first one is gone, or repeat what it has said.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import timedelta

PATIENCE_SECONDS = 20.0  # the launcher asks for SIGTERM after a fraction of a second; loading may differ by seconds


def count_restarts() -> int:
    """How often the launcher has started these processes again (`--max_restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def speaks_first() -> bool:
    """Whether this is the process of its machine that says what all processes have to say."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def wait_to_be_ended(seconds: float = PATIENCE_SECONDS) -> None:
    """Give the launcher time to end this process without a word; it returns if nobody does."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        with suppress(KeyboardInterrupt):
            time.sleep(seconds)


def record_failure(message: str) -> None:
    """Let the launcher, which has the last word, repeat why this process failed.

    Source: https://docs.pytorch.org/docs/stable/elastic/errors.html
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        details = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(file, "w", encoding="utf-8") as opened:
            json.dump({"message": {"message": message, "extraInfo": details}}, opened)


def join_after_restart(timeout_seconds: float = 1800) -> None:
    """Connect the processes of one machine that the launcher has started again, under a name of their own.

    The launcher keeps its store, in which the addresses of the processes before are still those of the group: the new ones
    would wait for them, or connect to nobody (https://github.com/pytorch/pytorch/issues/135712). Several machines do not count
    restarts together (https://github.com/pytorch/pytorch/issues/108158), so they have no common name.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if count_restarts() == 0 or processes == "1" or os.environ.get("LOCAL_WORLD_SIZE") != processes:
        return
    from torch import distributed

    if distributed.is_initialized():
        return
    timeout = timedelta(seconds=timeout_seconds)
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = distributed.TCPStore(address, port, ranks, is_master=False, timeout=timeout)
    own = distributed.PrefixStore(f"restart_{count_restarts()}", store)
    distributed.init_process_group(store=own, rank=rank, world_size=ranks, timeout=timeout)
