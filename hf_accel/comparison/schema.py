"""A comparison as data: the entries of its plan, the outcomes of the runs, and the table, which is `compare.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hf_accel.report.documents import load_document
from hf_accel.tasks.texts import TEXTS, TaskTexts

if TYPE_CHECKING:
    from hf_accel.config.recipe import Recipe
    from hf_accel.report.run_report import RunReport

SCHEMA = 1
AS_PUBLISHED = ("as_published", "as_published_tuned")


@dataclass(frozen=True)
class RunOutcome:
    """How one run of one entry ended; `report` is None when it failed, and `error` says why."""

    round: int
    seed: int
    started: float  # Unix seconds
    wall_seconds: float
    report: RunReport | None = None
    error: str | None = None

    @property
    def measured(self) -> RunReport:
        """The report of a run that did not fail."""
        assert self.report is not None, self.error
        return self.report


@dataclass(frozen=True)
class Entry:
    """One row of a plan: a recipe, perhaps with a variant."""

    name: str
    recipe: Recipe
    refused: str | None = None  # why it cannot run on this machine
    trial: str | None = None  # how it does less than the file of its recipe says
    leaves_out: str | None = None  # the technique that is switched off, of a comparison with --leave_out

    @property
    def folds(self) -> int | None:
        """The folds of cross-validation, which take turns in the rounds; None: every round has the same rows."""
        return self.recipe.data.folds

    def in_round(self, number: int) -> Entry:
        """The entry as a round runs it."""
        if self.folds is None:
            return self
        return replace(self, recipe=replace(self.recipe, data=replace(self.recipe.data, fold=number % self.folds)))


@dataclass(kw_only=True)
class Ratio:
    """A row over the baseline; the p-value after Holm's correction over the table."""

    ratio: float
    low: float | None
    high: float | None
    p_holm: float | None
    verdict: str


@dataclass(kw_only=True)
class Row:
    """The results of one entry.

    Attributes:
        figures: name -> {mean, std, n}; std is None with one run. A figure that no run has is absent.
        num_runs: finished runs (seeds), for accuracy.
        num_pairs: pairs with the baseline in the same round, for speed and memory.
        technique: settings in which the recipe differs from the baseline's: dotted name -> [baseline, this].
        differs: how the work itself differs from the baseline's, in words.
        trial: how its runs do less than the file of the recipe says; None when they do not.
        image_size: side of the model's input as the recipe sets it; None is the model's own.
        data: name, train_rows, validation_rows and test_rows of its first run; None when none finished.
        accuracy_difference: (mean, low, high) over paired seeds, in fractions; low and high None with one seed.
        accuracy_p_holm, accuracy_verdict: of that difference, corrected over the table as those of a Ratio.
        leaves_out: the technique that is switched off; None but for `--leave_out`.
    """

    name: str
    recipe: str
    variant: str
    model: str
    parameters: int | None = None
    failure: str | None = None
    num_runs: int = 0
    num_pairs: int = 0
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    technique: dict[str, list[Any]] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    accuracy_difference: tuple[float, float | None, float | None] | None = None
    speed: Ratio | None = None
    memory: Ratio | None = None
    trial: str | None = None
    image_size: int | None = None
    data: dict[str, Any] | None = None
    flops_per_image: int | None = None
    accuracy_p_holm: float | None = None
    accuracy_verdict: str | None = None
    leaves_out: str | None = None

    def mean(self, figure: str) -> float | None:
        return self.figures[figure]["mean"] if figure in self.figures else None


@dataclass(kw_only=True)
class Classes:
    """Figures by class of rows that were scored on the same test images.

    Attributes:
        labels: the C class names, in the order of their ids.
        accuracy: row -> (C,) share of the images of each class that are right, a mean over its runs; None without images.
        confusions: `{true, predicted, share, models, shares{row: share}}`, the most frequent first: which share of the images
            of one class is taken for another, the mean over the rows and each of them, and how many rows confuse the two.
    """

    labels: list[str]
    accuracy: dict[str, list[float | None]]
    confusions: list[dict[str, Any]]


@dataclass(kw_only=True)
class Comparison:
    """The whole table; `compare.json` is this, field by field, with the rows under `arms`.

    Attributes:
        fronts: "parameters" and "seconds" -> the rows that no other row surpasses, in both that figure and test accuracy.
        classes: of several recipes. Both are empty where these were not scored on the same images, which `notes` then says.
    """

    schema: int = SCHEMA
    baseline: str
    rounds: int
    memory_kind: str  # "peak_memory_gib" of a device, or "peak_anonymous_gib" of the process
    noise: float | None  # standard deviation of the log ratio of one pair
    smallest_effect: float | None  # ratio that would have been found four times in five
    environment: dict[str, Any]
    data: dict[str, Any]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    paper: dict[str, Any] | None = None
    fronts: dict[str, list[str]] = field(default_factory=dict)
    classes: Classes | None = None
    task: str = "image-classification"  # of the baseline

    @property
    def words(self) -> TaskTexts:
        """The words for its rows of data: images or texts."""
        return TEXTS[self.task]

    @property
    def has_several_recipes(self) -> bool:
        return len({row.recipe for row in self.rows}) > 1

    @property
    def leaves_out(self) -> bool:
        """Whether the rows are a recipe without each of its techniques."""
        return any(row.leaves_out for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"arms" if name == "rows" else name: value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a `compare.json`, or the one in a folder.

        Raises:
            UserError: there is no such file, it is damaged, or another version wrote it.
        """
        values = load_document(path, "compare.json", SCHEMA, "comparison", "Compare again")
        rows = [_row_from_json(row) for row in values.pop("arms")]
        classes = values.pop("classes", None)
        return cls(**values, rows=rows, classes=Classes(**classes) if classes else None)


def _row_from_json(values: dict[str, Any]) -> Row:
    ratios = {name: Ratio(**values[name]) if values[name] else None for name in ("speed", "memory")}
    difference = values["accuracy_difference"]
    return Row(**{**values, **ratios, "accuracy_difference": None if difference is None else tuple(difference)})
