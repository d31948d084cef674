"""The results of a run: `report.json` and `history.csv`.

The dataclasses are the file: field by field, in its order. A figure that was not measured is None there, null in the
file and a dash in the table, never 0. Nothing here imports torch, because comparisons and model cards are made from
reports on machines that never trained.
"""

import dataclasses
import json
import math
import numbers
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.report.calibration import CalibrationSummary
from hf_accel.report.history import history_csv
from hf_accel.report.table import WIDTH, render_table
from hf_accel.runs.folder import RunFolder

SCHEMA = 1


@dataclass(kw_only=True)
class DataSummary:
    """The data of a run.

    Attributes:
        test_split: the data set's own split that the test rows come from: test, validation or train.
        fingerprints: the fingerprint of each split, which `evaluate` and a resume compare; empty in reports of earlier versions.
        labels: the class names, in the order of their ids.
        duplicates_searched: whether images that occur twice were looked for; the notes name those found. False beyond 4 GiB.
        skipped: the unreadable images that were left out.
    """

    name: str | None = None
    fingerprint: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)
    train_rows: int | None = None
    validation_rows: int | None = None
    test_rows: int | None = None
    test_split: str | None = None
    labels: list[str] = field(default_factory=list)
    duplicates_searched: bool | None = None
    skipped: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ModelSummary:
    """The network.

    Attributes:
        flops_per_image: floating-point operations of a forward pass of one row; of a text of the greatest length.
        cpu_latency_seconds: the time of one image in the saved model on the CPU of the machine that trained, in float32 and
            eager, whatever device trained: the median of `cpu_latency_runs` forward passes after a warm-up. None where it was
            not saved whole by this run.
    """

    name: str | None = None
    parameters: int | None = None
    flops_per_image: int | None = None
    pretrained: bool | None = None
    cpu_latency_seconds: float | None = None
    cpu_latency_runs: int | None = None


@dataclass(kw_only=True)
class TrainSummary:
    """Optimisation alone: seconds and images_per_second leave out evaluation, saving, compilation and warm-up steps.

    Attributes:
        parallel: how several processes share the work: ddp, fsdp2 (fsdp1 for its first version) or deepspeed; None: there is
            one process.
        resumes: how often the run was interrupted, or made longer, and resumed from a checkpoint.
        repeated_steps: optimizer steps that were lost with a process and done again; no other figure contains them.
        effective_batch_size: the images per optimizer step that were really used, over all processes.
        feature_seconds: of `seconds`, those before the first step in which the classifier's input was computed once for each
            training image, and the classifier fitted where it is; None where it was not.
        accuracy: accuracy on the training batches of the last epoch, augmented as they were.
        compiled: True when every step was compiled; False when compilation was asked for and failed at some step; None when
            it was not asked for.
        compile_failure: why compiled is False, in a sentence.
        skipped_steps: of `steps`, those left out because loss or gradient norm was not finite (`on_nan: skip`, and the
            loss scaling of fp16).
        out_of_memory: (step, most rows of a forward pass from then on) of each step in which memory ran out and which was
            repeated in smaller parts; None without `auto_find_batch_size`.
    """

    steps: int | None = None
    skipped_steps: int | None = None
    epochs: float | None = None
    world_size: int | None = None
    parallel: str | None = None
    resumes: int | None = None
    repeated_steps: int | None = None
    effective_batch_size: int | None = None
    seconds: float | None = None
    feature_seconds: float | None = None
    images_per_second: float | None = None
    step_seconds_median: float | None = None
    data_wait_fraction: float | None = None
    transform_fraction: float | None = None
    compiled: bool | None = None
    compile_failure: str | None = None
    compile_seconds: float | None = None
    peak_memory_gib: float | None = None
    peak_rss_gib: float | None = None
    peak_anonymous_gib: float | None = None
    read_bytes: int | None = None
    energy_joules: float | None = None
    final_loss: float | None = None
    accuracy: float | None = None
    out_of_memory: list[list[int]] | None = None

    @property
    def memory_figures(self) -> list[tuple[float, str]]:
        """The measured peaks of memory, (GiB, where), the one that limits a run first: the device's, if it has its own."""
        figures = ((self.peak_memory_gib, "on the device"), (self.peak_rss_gib, "on the host, resident"))
        return [(gib, where) for gib, where in figures if gib is not None]


@dataclass(kw_only=True)
class PruningSummary:
    """The weights that are zero in the model that a run leaves; `RunReport.sparsity` has them by layer.

    Attributes:
        asked: share of the prunable weights that was to be zero.
        weights, zeros: number of prunable weights, and of zeros among them.
        file_bytes: of the saved weights.
        compressed_bytes: of the same file after zlib (level 6).
        flops_per_image: theoretical: of a forward pass of one image in which no zero takes part.
        images_per_second: of inference with kernels that leave zeros out, where it was measured; zeros alone save no time.
        history: (step, share of zeros) of each logged step.
    """

    asked: float | None = None
    weights: int | None = None
    zeros: int | None = None
    file_bytes: int | None = None
    compressed_bytes: int | None = None
    flops_per_image: int | None = None
    images_per_second: float | None = None
    history: list[list[float]] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """The share of the prunable weights that is zero."""
        return None if self.zeros is None or not self.weights else self.zeros / self.weights


@dataclass(kw_only=True)
class QuantizationSummary:
    """Training with weights and activations that are rounded to int8; the saved model and `RunReport.test` are without it.

    Attributes:
        layers: whose inputs and weights were rounded.
        begin, freeze: shares of the steps after which rounding began and the ranges were final.
        test_accuracy: of the saved weights with rounding, as an int8 file with the saved ranges has it.
    """

    layers: int | None = None
    begin: float | None = None
    freeze: float | None = None
    test_accuracy: float | None = None


@dataclass(kw_only=True)
class Scores:
    """The figures of one split, as `metrics.py` and `multi_label_metrics.py` have them, and the loss.

    Where a row has any number of labels, accuracy is the share of rows of which all are right; only there is mAP computed.
    """

    loss: float | None = None
    accuracy: float | None = None
    top5_accuracy: float | None = None
    f1_macro: float | None = None
    f1_micro: float | None = None
    f1_weighted: float | None = None
    mean_average_precision: float | None = None


@dataclass(kw_only=True)
class DetailedScores(Scores):
    """The figures of the test split.

    Attributes:
        views: the number of views of each image whose logits were averaged; 1 without test-time augmentation.
        test_time_augmentation: the setting that made these views.
        per_class: the result of `metrics.per_class`, or that of `detailed_multi_label_scores`.
        confusion: the result of `metrics.confusion`.
    """

    views: int | None = None
    test_time_augmentation: str | None = None
    per_class: list[dict[str, Any]] | None = None
    confusion: list[list[int]] | None = None


@dataclass(kw_only=True)
class ReferenceScores:
    """A plain method that was trained on the training rows and scored on the test rows, for comparison.

    Attributes:
        seconds: to learn and to score.
        train_rows: the rows that it learned from.
    """

    name: str | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    seconds: float | None = None
    train_rows: int | None = None


@dataclass(kw_only=True)
class RunReport:
    """One run.

    >>> report = RunReport(recipe="digits", variant="default", test=DetailedScores(accuracy=0.98))
    >>> RunReport.load(report.save("outputs/digits/default")) == report
    True

    Attributes:
        task: `model.task` of the recipe.
        settings: the TrainingArguments that differ from upstream's defaults.
        notes: what was decided for the user, a sentence each.
        environment: `environment.describe_environment()`.
        history: one row per logged step with the keys HISTORY_COLUMNS, see `history_from_log`.
        phases: rows of methods that train in phases; None unless used.
        sparsity: per pruned layer its name, shape, weights and zeros; None unless used.
        pruning: the same over all layers; None unless used.
        quantization: training for int8; None unless used.
        validation: None when no rows were held out.
        test: None when the test split was not scored.
        reference: None for images.
        calibration: None without validation rows, with too few of them, or where it is switched off.
        thresholds: the scores from which a row has a label, by label, chosen on the validation rows; None: 0.5, or one class.
    """

    schema: int = SCHEMA
    recipe: str
    variant: str
    task: str = "image-classification"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    data: DataSummary = field(default_factory=DataSummary)
    model: ModelSummary = field(default_factory=ModelSummary)
    train: TrainSummary = field(default_factory=TrainSummary)
    history: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] | None = None
    sparsity: list[dict[str, Any]] | None = None
    pruning: PruningSummary | None = None
    quantization: QuantizationSummary | None = None
    validation: Scores | None = None
    test: DetailedScores | None = None
    reference: ReferenceScores | None = None
    calibration: CalibrationSummary | None = None
    thresholds: list[float] | None = None

    @property
    def has_several_views(self) -> bool:
        """Whether the scores are means over several views of each image; the saved model looks at one."""
        return self.test is not None and (self.test.views or 1) > 1

    @property
    def score_notes(self) -> list[str]:
        """Sentences that are shown next to the scores everywhere, because the scores would be misread without them."""
        if self.test is None or not self.has_several_views:
            return []
        return [
            f"Test-time augmentation: {self.test.test_time_augmentation}, so the validation and test figures are of the mean "
            f"of the logits over {self.test.views} views of each image; the saved model alone looks at one."
        ]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types: numpy numbers become Python's, figures that are not finite become None."""
        return _plain(self)

    def texts(self, run: RunFolder) -> dict[Path, str]:
        """The files that `save` writes, with their content, in their order."""
        values = self.to_dict()
        return {run.history: history_csv(values["history"]), run.report: _readable_json(values)}

    def save(self, folder: str | Path) -> Path:
        """Write `report.json` and `history.csv` into `folder`, each whole or not at all; returns the first's path."""
        run = RunFolder(folder)
        run.path.mkdir(parents=True, exist_ok=True)
        for path, text in self.texts(run).items():
            write_whole(path, text)
        return run.report

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report back.

        Args:
            path: a `report.json`, or the folder of a run.
        Raises:
            UserError: there is no report, it is damaged, or another version of this package wrote it.
        """
        path = Path(path)
        if path.is_dir():
            path = RunFolder(path).report
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{path}: no report could be read ({error.strerror}), expected the report.json of a finished run. "
                "Name the folder of a run."
            ) from error
        except ValueError as error:
            raise UserError(
                f"{path}: the report is damaged ({error}), expected JSON. Repeat the run, or restore the file."
            ) from error
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            schema = values.get("schema") if isinstance(values, dict) else None
            raise UserError(
                f"{path}: schema is {schema!r}, expected {SCHEMA}. Read it with the version of hf_accel that wrote it."
            )
        sections = {
            "data": DataSummary,
            "model": ModelSummary,
            "train": TrainSummary,
            "pruning": PruningSummary,
            "quantization": QuantizationSummary,
            "validation": Scores,
            "test": DetailedScores,
            "reference": ReferenceScores,
            "calibration": CalibrationSummary,
        }
        for name, section in sections.items():
            if values.get(name) is not None:
                values[name] = _from_values(section, values[name], f"{path}: {name}")
        return _from_values(cls, values, str(path))

    def table(self, folder: str | Path | None = None, width: int = WIDTH) -> str:
        """The main figures of the run, with the machine they were measured on and what they leave out.

        Args:
            folder: the folder of the run; when given, its files are listed below the table.
            width: columns of the text around the figures; only a path may be longer, so that it can be copied.
        """
        return render_table(self, None if folder is None else Path(folder), width)


def _from_values(cls: type, values: Any, where: str) -> Any:
    """Build a dataclass from a JSON object; fields that are absent keep their defaults."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: got {type(values).__name__}, expected an object. The report is damaged.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(values.keys() - fields.keys())
    if unknown:
        raise UserError(
            f"{where}: unknown {', '.join(unknown)}, expected only {', '.join(fields)}. "
            "Read it with the version of hf_accel that wrote it."
        )
    for name, f in fields.items():
        if name not in values:
            if f.default is f.default_factory is dataclasses.MISSING:
                raise UserError(f"{where}: {name} is absent, expected text. The report is damaged.")
        elif isinstance(f.default_factory, type) and not isinstance(values[name], f.default_factory):
            # The factories are types: list, dict or a section.
            got, expected = type(values[name]).__name__, f.default_factory.__name__
            raise UserError(f"{where}: {name} is {got}, expected {expected}. The report is damaged.")
    return cls(**values)


def _plain(value: Any) -> Any:
    """`value` in JSON types."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"a report holds JSON types, got {value!r} of {type(value).__name__}")


def _readable_json(values: dict[str, Any]) -> str:
    """Indented JSON with each row of numbers on one line. A newline in the text is never inside a string."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    numbers_only = re.compile(r"\[\n[\s\d.,eE+-]+\]")
    return (
        numbers_only.sub(lambda row: " ".join(row.group().split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"
    )
