"""The messages of a run, in the terminal and in log.txt."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hf_accel import terminal


def start_console(is_main: bool) -> None:
    """Send this package's messages to stderr; the other ranks send warnings only."""
    root = logging.getLogger("hf_accel")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    for handler in [*root.handlers]:  # a second run in this process: the first one's log.txt is complete
        root.removeHandler(handler)
        handler.close()
    root.propagate = False
    console = _Console(sys.stderr)
    if terminal.is_quiet():
        console.setLevel(logging.WARNING)
    root.addHandler(console)


class _Console(logging.StreamHandler):
    """Messages as a person reads them: above a bar, wrapped to the terminal, warnings marked."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno < logging.WARNING or "warning: " in text:
            return terminal.wrap(text, self.stream, indent="  ")
        return terminal.marked("warning:", "yellow", text, self.stream, indent="  ")

    def emit(self, record: logging.LogRecord) -> None:
        with terminal.above_bars():
            super().emit(record)


def start_log(path: Path) -> None:
    """Send the messages to a file too, with times."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("hf_accel").addHandler(file)


def note_in_log(message: str, level: int = logging.ERROR) -> None:
    """Write a message to the run's file alone, such as an error that the command prints when it ends with it."""
    logger = logging.getLogger("hf_accel")
    record = logger.makeRecord(logger.name, level, __file__, 0, message, (), None)
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
    if not terminal.shows_bars():
        datasets.disable_progress_bars()
