"""One split of a data set, to be scored by a model that was trained elsewhere: nothing is held out of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hf_accel.config.sections import DataSettings
from hf_accel.data.duplicates import duplicate_notes
from hf_accel.data.holding_out import subset
from hf_accel.data.image_folder import ImageFolder, open_image_folder
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.labelling import label_files, label_one_table
from hf_accel.data.rows import require_datasets
from hf_accel.data.splits import TEST_SEED, deep_grey_notes, readable_rows, split_fingerprint, with_present_classes
from hf_accel.errors import UserError

if TYPE_CHECKING:  # an exported model is scored on an image folder without `datasets`
    from hf_accel.data.sources import Source


_STAND_FOR = {"test": ("validation", "train")}  # role -> the splits that are scored where there is none of that role


@dataclass(frozen=True)
class ScoredRows:
    """One split, to be scored by a model that was trained elsewhere."""

    split: LabelledRows  # its label_names are the classes that have rows, one or more
    fingerprint: str  # comparable with those in `Splits.fingerprints`
    taken: str  # the data set's own split that the rows are of: train, validation or test
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_split(settings: DataSettings, role: str = "test") -> ScoredRows:
    """Everything that data holds of one split, for evaluation alone: nothing is held out, one class is enough.

    Data without splits (a folder of class folders, a table without a test split) is scored as a whole when its test or
    train rows are asked for; without a test split the validation split is the test. `max_test_rows`, for train
    `max_train_rows`, and `on_bad_image` apply.

    Args:
        role: train, validation or test.
    Raises:
        UserError: the data cannot be found or understood, or has no such split with labels.
    """
    source: ImageFolder | Source | None = open_image_folder(settings)
    if source is None:
        require_datasets(f"data.name {settings.name}")
        from hf_accel.data.sources import open_source

        source = open_source(settings)
    taken = scored_role(source, settings, role)
    if isinstance(source, ImageFolder):
        whole, notes = label_files(source, settings, taken)
    else:
        whole, notes = label_one_table(source, settings, taken)
    if whole is None or not len(whole):
        raise UserError(
            f"data.name {settings.name}: {'; '.join(notes) or 'it is empty'}. Expected labelled images to score."
        )
    part = subset(whole, settings.max_train_rows if role == "train" else settings.max_test_rows, TEST_SEED)
    skipped: list[str] = []
    if settings.on_bad_image == "skip":
        part = readable_rows(part, skipped, refuse_gone=False)
    if taken != role:
        notes.append(f"no {role} split: all its rows ({source.names[taken]}) are scored")
    notes += deep_grey_notes({taken: part}) + duplicate_notes({taken: part}, settings.name)
    part = replace(with_present_classes(part), content=None)
    return ScoredRows(part, split_fingerprint(part), taken, skipped, notes)


def scored_role(source: ImageFolder | Source, settings: DataSettings, role: str) -> str:
    """The role of the data's own split that is scored as this one; raises UserError where there is none."""
    taken = next((name for name in (role, *_STAND_FOR.get(role, ())) if name in source.parts), None)
    if taken is None and role == "train" and len(source.parts) == 1:
        taken = next(iter(source.parts))
    if taken is None:
        raise UserError(
            f"data.name {settings.name}: has no {role} split, only {', '.join(source.names.values())}. Ask for another "
            "split, or name a folder of class folders."
        )
    return taken
