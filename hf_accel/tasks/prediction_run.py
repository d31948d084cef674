"""The answers of `hf-accel predict` as they come: rows on the screen or in a file, a bar, and the exit code."""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hf_accel import terminal
from hf_accel.cli import interrupt_says, is_main_process, print_result
from hf_accel.errors import UserError
from hf_accel.formatting import format_count
from hf_accel.tables import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from hf_accel.data.images import UnreadableImageError
    from hf_accel.data.text_files import UnusableTextError
    from hf_accel.models.exported import Exported
    from hf_accel.models.loaded import Loaded
    from hf_accel.tasks.image_scoring import ScoredImage
    from hf_accel.tasks.prediction_file import PredictionFile
    from hf_accel.tasks.predictions import PredictedRow, PredictionShape
    from hf_accel.tasks.text_scoring import ScoredText

    Answer = ScoredImage | ScoredText
    Problem = UnreadableImageError | UnusableTextError


class PredictionRun:
    """Answers -> rows on the screen or in a file, with a bar, and the exit code.

    Args:
        loaded: the model, which makes answers of logits.
        explain: draws the explanation of an answer, with the number of its class.
        output: the file that gets the rows; None: standard output does.
        count: how many images or texts there are, those that `output` holds included; None: not known.
        done_before: how many of them it holds.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        task: Any,
        form: str,
        shape: PredictionShape,
        loaded: Loaded | Exported,
        explain: Callable[[Answer, int], None] | None,
        output: PredictionFile | None,
        count: int | None,
        done_before: int,
    ) -> None:
        self.args, self.task, self.form, self.shape, self.output, self.count = args, task, form, shape, output, count
        self.loaded, self.explain = loaded, explain
        self.done_before = done_before
        self.classified = 0
        self.unreadable: list[Problem] = []

    def finish(self, answers: Generator[Answer, None, None]) -> int:
        """Write all rows; returns the exit code.

        Raises:
            UserError: nothing could be read, or something could not and --on_bad_image is error.
        """
        # rows that appear on the same terminal show the progress themselves
        hidden = self.output is None and terminal.is_terminal(sys.stdout)
        bar = terminal.bar(self.count, "classified", self.task.unit, initial=self.done_before, disable=hidden)
        try:
            with interrupt_says(self._interrupted), bar, contextlib.closing(answers):
                self._write(self._rows(answers, bar))
        finally:
            if self.output is not None:
                self.output.close()
        return self._exit_code()

    def _interrupted(self) -> str:
        if self.output is None:
            return f"the {self.task.unit}s that are not printed are not classified. --output FILE keeps what is done."
        return f"{format_count(len(self.output))} rows are in {self.args.output}. The same command continues it."

    def _rows(self, answers: Iterable[Answer], bar: tqdm) -> Iterator[PredictedRow]:
        for answer in answers:
            bar.update()
            if answer.logits is not None:
                self.classified += 1
                found = self.loaded.answer(answer.logits)
                if self.explain is not None and is_main_process():
                    self.explain(answer, int(found.probabilities.argmax()))
                yield self.shape.row(*found, **self.task.place_of(answer.source))
            elif answer.error is not None:
                self._note(answer.error, bar)

    def _note(self, error: Problem, bar: tqdm) -> None:
        if self.args.on_bad == "error":
            raise UserError(f"{error} Fix or remove it, or leave out --on_bad_{self.task.unit} error.")
        self.unreadable.append(error)
        if is_main_process() and self.count != 1:  # which ends with an error
            bar.clear()  # the next row draws it again
            terminal.warn(printable(f"left out: {error}"))

    def _write(self, rows: Iterator[PredictedRow]) -> None:
        if not is_main_process():
            collections.deque(rows, maxlen=0)
        elif self.output is not None:
            self.output.write(rows)
        else:
            from hf_accel.tasks.printed_predictions import render

            render(rows, self.form, self.shape, self.args.batch_size)

    def _exit_code(self) -> int:
        unreadable = len(self.unreadable)
        total = self.done_before + self.classified + unreadable
        if not total and self.count is None:
            raise UserError(f"no {self.task.unit} is named on standard input, expected {self.task.named_by}")
        if unreadable and not self.classified and not self.done_before and self.args.on_bad == "report":
            what = (
                ""
                if unreadable == 1
                else f"none of the {format_count(unreadable)} {self.task.unit}s can be read; the first: "
            )
            raise UserError(f"{what}{self.unreadable[0]}")
        if is_main_process():
            self._say_end(total)
        return 1 if unreadable and self.args.on_bad == "report" else 0

    def _say_end(self, total: int) -> None:
        if self.output is not None:
            left_out = [{"file": error.where, "reason": error.reason} for error in self.unreadable]
            document = {"output": str(self.args.output), "rows": len(self.output), "left_out": left_out}
            text = f"{self.args.output}: {format_count(len(self.output))} rows"
            print_result(self.args, document, text, str(self.args.output))
        if self.unreadable:
            what = f"{format_count(len(self.unreadable))} of {format_count(total)} {self.task.unit}s could not be read"
            terminal.warn(f"{what} and are left out")
