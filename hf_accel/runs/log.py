"""The messages of a run, in the terminal and in log.txt."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from hf_accel.errors import RunError, UserError, own_words


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
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("hf_accel").addHandler(file)


class _LogFile(logging.FileHandler):
    """A file that may lose lines: a full disk ends a run where a checkpoint fails, with one message, and not here."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        error = sys.exc_info()[1]
        if "DataLoader worker" in str(error):  # torch raises it wherever Python happens to be when a process is gone
            self.emit(record)
        elif not isinstance(error, OSError):
            super().handleError(record)


def note_in_log(error: BaseException) -> None:
    """Write why a run ended to its log alone: the terminal gets one message from the command that ends with it."""
    trace = None
    if isinstance(error, UserError | RunError):
        message = own_words(error)
    else:
        message = str(error) or type(error).__name__
        trace = None if isinstance(error, KeyboardInterrupt) else (type(error), error, error.__traceback__)
    logger = logging.getLogger("hf_accel")
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), trace)
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
