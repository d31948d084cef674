"""The rows that an evaluation scores: those of a run, compared with what it recorded of them, or all of other data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import DataSettings
from hf_accel.errors import UserError, did_you_mean
from hf_accel.formatting import format_count
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.recorded_data import DataFacts, SplitFacts, changes, facts_of

if TYPE_CHECKING:
    from hf_accel.data.labelled_rows import LabelledRows

NAMES_SHOWN = 3
DEFAULT_SEED = 42  # of TrainingArguments


@dataclass(frozen=True)
class EvaluatedRows:
    """What is scored, and what a reader of the scores must know of it."""

    split: LabelledRows
    changed: bool | None  # other rows than the run had in this split; None: not known, or of no run
    notes: list[str]
    is_train: bool = False  # of other data: the rows of its train split


def rows_of_run(task: Any, run: RunFolder, trained: Recipe, data: DataSettings, split_name: str) -> EvaluatedRows:
    """The rows that a run had in one of its splits, compared with what it recorded of them.

    Args:
        trained: the recipe of the run.
        data: what is asked for.
    Raises:
        UserError: there is no such split, or its rows were drawn from data that has changed since.
    """
    seed = int(trained.training.get("seed", DEFAULT_SEED))  # of the run, whatever is asked for now
    splits = task.open_splits(data, seed)
    split = getattr(splits, split_name)
    if split is None:
        raise UserError(
            f"--split validation: {data.name} has none, and data.validation is 0. Use --split test or train."
        )
    # what is asked for may be fewer of them
    as_trained = splits if data == trained.data else task.open_splits(trained.data, seed)
    before = recorded_data(run)
    if not before:
        return EvaluatedRows(split, None, [])
    change = changes(before, facts_of(as_trained)).get(split_name)
    if change is None:
        return EvaluatedRows(split, False, [])
    if split_name in as_trained.held_out:
        raise UserError(
            f"{data.name}: has changed since {run.path} was trained on it ({split_name}: {change}). The {split_name} "
            "rows are drawn from its train split, so the model may have been trained on some of those drawn now. Restore "
            f"the data, or score {split.unit}s that the run has not seen with --data.name."
        )
    what = f"warning: the {split_name} rows are not those that {run.path} had ({change})"
    return EvaluatedRows(split, True, [f"{what}, so its report is of other rows"])


def rows_of_other_data(task: Any, data: DataSettings, split_name: str) -> EvaluatedRows:
    """All rows of a split of data that was named."""
    rows = task.open_split(data, split_name)
    notes = list(rows.notes)
    if rows.skipped:
        notes.append(
            f"{format_count(len(rows.skipped))} unreadable {rows.split.unit}s are left out; the first: {rows.skipped[0]}"
        )
    return EvaluatedRows(rows.split, None, notes, rows.taken == "train")


def recorded_data(run: RunFolder) -> DataFacts:
    """What a run recorded of its rows: in its report, and while there is none, in its folder. Empty: nothing."""
    if not run.is_finished:
        return run.data
    data = RunReport.load(run.report).data
    rows = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
    return {
        role: SplitFacts(count or 0, data.fingerprints[role])
        for role, count in rows.items()
        if role in data.fingerprints
    }


def same_place(one: str, other: str) -> bool:
    """Whether two names of data mean the same: a folder by whatever path, or one name."""
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def absent_classes(split: LabelledRows) -> list[str]:
    """A sentence on the classes of the model that the data has no row of; their F1 counts as 0 in the macro mean."""
    absent = [name for name, count in zip(split.label_names, split.class_counts(), strict=True) if not count]
    if not absent:
        return []
    names = ", ".join(map(repr, absent[:NAMES_SHOWN])) + (", …" if len(absent) > NAMES_SHOWN else "")
    return [f"no {split.unit} of {len(absent):,} of the model's {len(split.label_names):,} classes: {names}"]


def in_classes_of_model(split: LabelledRows, label_names: list[str]) -> LabelledRows:
    """The same rows with the model's numbers of their classes, which are matched by name."""
    import numpy as np

    numbers = {name: number for number, name in enumerate(label_names)}
    unknown = [name for name in split.label_names if name not in numbers]
    if unknown:
        raise UserError(
            f"{split.source}: the model does not know the class {unknown[0]!r}. {did_you_mean(unknown[0], numbers)} "
            "Expected the class names that the model was trained on."
        )
    return split.renumbered(np.array([numbers[name] for name in split.label_names], np.int64), label_names)
