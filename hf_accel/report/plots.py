"""The plots of one run as matplotlib figures, each with a sentence that says the same in words.

Colours are Okabe and Ito's, which every kind of colour vision can tell apart. In a page the plots follow its light or dark
theme, because each colour becomes a CSS variable there; saved as files they are plain SVG on white, for papers.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from hf_accel.files import write_whole
from hf_accel.formatting import format_count, format_duration, format_percent, format_score
from hf_accel.report.history import MEAN_PRECISION
from hf_accel.tables import printable

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

    from hf_accel.report.calibration import CalibrationSummary
    from hf_accel.report.run_report import RunReport

INK, MUTED, GRID = "#1f2329", "#5b6572", "#d5dae1"
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"
THEME = {INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue", ORANGE: "orange", GREEN: "green",
         VERMILION: "vermilion", PURPLE: "purple"}  # fmt: skip
WIDTH = 4.8  # inches: on a phone the page shows a plot at about three quarters of its size, text still readable
MOST_NAMED = 30  # classes that fit next to an axis
MOST_NAMED_LARGE = 200  # classes that fit next to the axes of a matrix that is larger than a page, and is scrolled
MOST_LAYERS, TALLEST = 60, 13.0  # layers that are named next to an axis; inches of that plot
LARGE_CELL = 0.155  # inches of a class in such a matrix: the smallest at which neighbouring names do not touch
STYLE: dict[RcKeyType, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.facecolor": "none",  # the page shows through, light or dark
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Plot:
    name: str  # file name without ending
    title: str
    figure: Figure
    alt: str  # the same information in words

    @property
    def is_large(self) -> bool:
        """Whether it is shown at its own size, and scrolled, because its letters would be too small at a page's width."""
        return self.figure.get_figwidth() > 2 * WIDTH

    def html(self) -> str:
        """Inline SVG with the page's font and theme."""
        text = self._svg(fonttype="none", facecolor="none")
        text = re.sub(r'^.*?<svg (.*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1, flags=re.DOTALL)
        for colour, name in THEME.items():
            text = text.replace(colour, f"var(--{name})")
        size = f' style="width: {self.figure.get_figwidth():.1f}in"' if self.is_large else ""
        attributes = f'class="plot"{size} role="img" aria-label="{escape(printable(self.alt))}"'
        return text.replace("<svg ", f"<svg {attributes} ", 1)

    def save(self, folder: Path) -> Path:
        """Write NAME.svg with its letters as paths: it looks the same in every program."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.svg"
        return write_whole(path, self._svg(fonttype="path", facecolor="white"))

    def save_png(self, folder: Path) -> Path:
        """Write NAME.png, for programs that show no SVG."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.png"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            self.figure.savefig(path, dpi=144, facecolor="white")
        return path

    def _svg(self, fonttype: str, facecolor: str) -> str:
        buffer = io.StringIO()
        # The salt keeps the ids of two plots of a page apart; no date, so that the same run gives the same bytes.
        with matplotlib.rc_context({"svg.fonttype": fonttype, "svg.hashsalt": self.name}), warnings.catch_warnings():
            # one per character of class names that matplotlib's font lacks; in a page the reader's fonts show them
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            self.figure.savefig(buffer, format="svg", metadata=nothing, facecolor=facecolor)
        return buffer.getvalue()


def run_plots(report: RunReport) -> dict[str, Plot]:
    """Every plot that the report has figures for, by name."""
    with matplotlib.rc_context(STYLE):
        plots = [*_curves(report.history), _step_time(report)]
        if report.test is not None:
            plots += [_per_class(report.test.per_class), _confusion(report.test.confusion, report.data.labels)]
        if report.calibration is not None:
            plots.append(_reliability(report.calibration))
        if report.pruning is not None:
            plots += [_sparsity_by_layer(report.sparsity), _sparsity_by_step(report.pruning.history)]
    return {plot.name: plot for plot in plots if plot is not None}


def new_axes(height: float = 3.2, width: float = WIDTH) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _curves(history: Sequence[dict[str, Any]]) -> list[Plot]:
    plots = []
    lines = [("loss", "train", BLUE, "-"), ("validation_loss", "validation", ORANGE, "o--")]
    plots.append(_curve(history, "loss", "Loss", lines))
    of_labels = [(MEAN_PRECISION, "validation", ORANGE, "o-")]
    precision = _curve(history, "mean_average_precision", "Validation mAP", of_labels)
    of_class = [("validation_accuracy", "validation", ORANGE, "o-")]
    plots.append(precision or _curve(history, "accuracy", "Validation accuracy", of_class))
    plots.append(_curve(history, "learning_rate", "Learning rate", [("learning_rate", "learning rate", BLUE, "-")]))
    return [plot for plot in plots if plot is not None]


def _curve(
    history: Sequence[dict[str, Any]], name: str, title: str, lines: Sequence[tuple[str, str, str, str]]
) -> Plot | None:
    found = []
    for key, label, colour, style in lines:
        points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None and row["epoch"] is not None]
        if points:
            epochs, values = zip(*points, strict=True)
            found.append((label, colour, style, epochs, values))
    if not found:
        return None
    is_setting = name == "learning_rate"  # and not a result: a small plot is enough
    figure, axes = new_axes(1.6, width=2.4) if is_setting else new_axes(2.7, width=4.1)
    changes = []
    for label, colour, style, epochs, values in found:
        axes.plot(epochs, values, style, color=colour, label=label, markersize=3.5)
        changes.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g}")
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    if is_setting:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if len(found) > 1:
        axes.legend()
    return Plot(name, title, figure, f"{title} over {found[0][3][-1]:.3g} epochs: {', '.join(changes)}.")


def _per_class(rows: list[dict[str, Any]] | None) -> Plot | None:
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: row["f1"])
    shown = ordered[:MOST_NAMED]
    figure, axes = new_axes(0.26 * len(shown) + 1.0)
    places = np.arange(len(shown))
    for key, marker, colour in (("precision", "<", BLUE), ("recall", ">", ORANGE), ("f1", "o", INK)):
        values = [row[key] for row in shown]
        axes.plot(values, places, marker, color=colour, label=key if key != "f1" else "F1", markersize=5)
    axes.set_yticks(places, [short_label(row["label"]) for row in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.invert_yaxis()
    axes.set_xlim(right=1.005)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handletextpad=0.2)
    worst, best = ordered[0], ordered[-1]
    which = f" of the {len(shown)} hardest of {len(rows)} classes" if len(rows) > len(shown) else ""
    return Plot(
        "per_class",
        f"Precision, recall and F1{which or ' by class'}",
        figure,
        f"Precision, recall and F1{which or f' of {len(rows)} classes'}, hardest first. Lowest F1: {worst['label']} "
        f"{format_score(worst['f1'])}. Highest: {best['label']} {format_score(best['f1'])}.",
    )


def _confusion(counts: list[list[int]] | None, labels: Sequence[str]) -> Plot | None:
    if not counts:
        return None
    matrix = np.asarray(counts)  # (true, predicted)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    is_large = MOST_NAMED < len(labels) <= MOST_NAMED_LARGE
    side = LARGE_CELL * len(labels) + 1.5 if is_large else WIDTH
    figure, axes = new_axes(side - 0.2, width=max(side, 2.01 * WIDTH) if is_large else side)
    # Opacity instead of a light colour, so that an empty cell shows the page, light or dark.
    ramp = LinearSegmentedColormap.from_list("opacity", [(0, 0.447, 0.698, 0), (0, 0.447, 0.698, 1)])
    axes.imshow(share, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    _name_classes(axes, labels)
    _write_counts(axes, matrix, share)
    wrong = largest_confusions(counts, labels, 1)
    largest = f" The most frequent: {wrong[0][0]} taken for {wrong[0][1]}, {wrong[0][2]} times." if wrong else ""
    mistakes = int(matrix.sum() - np.trace(matrix))
    return Plot(
        "confusion",
        "Confusion matrix",
        figure,
        f"Confusion matrix of {len(labels)} classes: {format_count(int(matrix.sum()))} test rows, "
        f"{format_count(mistakes)} off the diagonal.{largest}",
    )


def _name_classes(axes: Any, labels: Sequence[str]) -> None:
    """Name the axes of a confusion matrix, and its classes where there is room."""
    has_names = len(labels) <= MOST_NAMED_LARGE
    if has_names:
        names = [short_label(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(labels)), names)
    if MOST_NAMED < len(labels) <= MOST_NAMED_LARGE:
        # names on all four sides, since only a part of such a matrix is seen at a time
        axes.tick_params(labelsize=8.5, labeltop=True, labelright=True, top=True, right=True)
        axes.tick_params(axis="x", labelrotation=90)
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_xticks(np.arange(len(labels)) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(labels)) + 0.5, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(visible=True, which="minor", linewidth=0.3)
    axes.set_xlabel("predicted" if has_names else "predicted (class number)")
    axes.set_ylabel("true" if has_names else "true (class number)")


def _write_counts(axes: Any, matrix: np.ndarray, share: np.ndarray) -> None:
    """Write the number of images into the cells of a confusion matrix where there is room.

    Args:
        matrix, share: (true, predicted); numbers of images, and shares of the images of the true class.
    """
    if 12 < len(matrix) <= MOST_NAMED or len(matrix) > MOST_NAMED_LARGE:
        return
    few = 7.5 if matrix.max() > 999 or len(matrix) > 12 else 8.5
    for true, predicted in np.argwhere(matrix > 0):
        axes.text(
            predicted,
            true,
            str(matrix[true, predicted]),
            ha="center",
            va="center",
            fontsize=few,
            color="white" if share[true, predicted] > 0.5 else INK,
        )


def _reliability(calibration: CalibrationSummary) -> Plot | None:
    if not calibration.reliability_after:
        return None
    figure, axes = new_axes(3.6)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    for bins, label, colour, style in (
        (calibration.reliability_before, "as the model says", ORANGE, "o--"),
        (calibration.reliability_after, "calibrated", BLUE, "o-"),
    ):
        confidence, accuracy, rows = np.array(bins).T
        axes.plot(confidence, accuracy, style, color=colour, label=label, markersize=3)
        axes.scatter(confidence, accuracy, 160 * rows / rows.sum(), color=colour, alpha=0.4, linewidths=0)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper left")
    return Plot(
        "reliability",
        "Confidence and accuracy",
        figure,
        "Accuracy of the test answers by their confidence, in bins. Expected calibration error: "
        f"{format_score(calibration.ece_before)} as the model says, {format_score(calibration.ece_after)} calibrated.",
    )


def largest_confusions(counts: list[list[int]] | None, labels: Sequence[str], most: int) -> list[tuple[str, str, int]]:
    """(true, predicted, images) of the most frequent mistakes; an empty list where the confusion was not counted."""
    if not counts:
        return []
    matrix = np.asarray(counts).copy()
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    cells = [np.unravel_index(flat, matrix.shape) for flat in order]
    return [(labels[true], labels[guess], int(matrix[true, guess])) for true, guess in cells if matrix[true, guess]]


def _step_time(report: RunReport) -> Plot | None:
    train = report.train
    if train.step_seconds_median is None or train.data_wait_fraction is None:
        return None
    wait, transform = train.data_wait_fraction, train.transform_fraction or 0.0
    parts = [
        ("waiting for data", wait, ORANGE),
        ("image transforms", transform, PURPLE),
        ("model and optimizer", max(0.0, 1 - wait - transform), BLUE),
    ]
    figure, axes = new_axes(1.6, width=4.1)
    start = 0.0
    for label, part, colour in parts:
        axes.barh(0, part, left=start, color=colour, height=0.6, label=f"{label} {format_percent(part)}")
        start += part
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["left"]].set_visible(False)
    axes.grid(visible=False)
    # One column: on a phone three entries side by side would not be read.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    shares = ", ".join(f"{label} {format_percent(part)}" for label, part, _ in parts)
    return Plot(
        "step_time",
        "Where the time of a step goes",
        figure,
        f"A step takes {format_duration(train.step_seconds_median)} (median). Of the training time: {shares}.",
    )


def _sparsity_by_layer(rows: list[dict[str, Any]] | None) -> Plot | None:
    if not rows:
        return None
    shares = [row["zeros"] / row["weights"] for row in rows]
    figure, axes = new_axes(min(0.2 * len(rows) + 0.9, TALLEST))
    axes.barh(range(len(rows)), shares, color=BLUE, height=0.7)
    every = -(-len(rows) // MOST_LAYERS)
    names = [short_label(row["name"].removeprefix("timm_model."), most=28) for row in rows]
    axes.set_yticks(range(0, len(rows), every), names[::every])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="y", visible=False)
    low, high = int(np.argmin(shares)), int(np.argmax(shares))
    return Plot(
        "sparsity_by_layer",
        "Zeros by layer",
        figure,
        f"Share of zeros in {len(rows)} layers, from the input to the output. Lowest: {rows[low]['name']} "
        f"{format_percent(shares[low])}. Highest: {rows[high]['name']} {format_percent(shares[high])}.",
    )


def _sparsity_by_step(history: list[list[float]]) -> Plot | None:
    if not history:
        return None
    steps, shares = zip(*history, strict=True)
    figure, axes = new_axes(1.6, width=2.4)
    axes.plot(steps, shares, color=BLUE)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    alt = f"Share of zeros from {format_percent(shares[0])} to {format_percent(shares[-1])} in {steps[-1]:g} steps."
    return Plot("sparsity_by_step", "Zeros by step", figure, alt)


def short_label(label: str, most: int = 18) -> str:
    label = " ".join(label.split())
    return verbatim(label if len(label) <= most else f"{label[: most - 1]}…")


def verbatim(text: str) -> str:
    """Text that matplotlib shows as it is: it would read a formula between two dollar signs, and fail for most names.

    Control characters, which no SVG may hold, become visible escapes.
    """
    return printable(text).replace("$", r"\$")
