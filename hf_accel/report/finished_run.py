"""A finished run for its page, its card and a push: its folder, its recipe and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    folder: RunFolder
    recipe: Recipe
    report: RunReport

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `hf-accel train` left.

        Raises:
            UserError: the folder is not that of a finished run; says what is missing.
        """
        folder = RunFolder(path)
        missing = folder.missing()
        if missing:
            raise UserError(
                f"{folder.path}: {', '.join(missing)} not found, expected the folder of a finished run, as `hf-accel train` "
                "leaves it in outputs/<recipe>/<variant>."
            )
        return cls(folder, load_recipe(folder.recipe), RunReport.load(folder.report))
