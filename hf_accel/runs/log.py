"""The messages of a run, in the terminal and in log.txt."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path


def start_console(is_main: bool) -> None:
    """Send this package's messages to stderr; the other ranks send warnings only."""
    root = logging.getLogger("hf_accel")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    for handler in [*root.handlers]:  # a second run in this process: the first one's log.txt is complete
        root.removeHandler(handler)
        handler.close()
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)


def start_log(path: Path) -> None:
    """Send the messages to a file too, with times."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("hf_accel").addHandler(file)


def note_in_log(message: str) -> None:
    """Write an error to the run's file alone: the terminal gets it from the command that ends with it."""
    logger = logging.getLogger("hf_accel")
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def quiet_libraries() -> None:
    """Leave the screen to this package: transformers and datasets report problems only."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not os.isatty(2):
        datasets.disable_progress_bars()
