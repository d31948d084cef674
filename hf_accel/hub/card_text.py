"""The card's Markdown, section by section, from the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hf_accel.config.recipe import Recipe
from hf_accel.formatting import (
    format_count,
    format_duration,
    format_energy,
    format_gib,
    format_percent,
    format_quantity,
    format_score,
)
from hf_accel.hub.publication import BESIDE_MODEL, CARD_PLACEHOLDER
from hf_accel.measure.paired import wilson_interval
from hf_accel.report.plots import largest_confusions
from hf_accel.report.run_report import RunReport
from hf_accel.report.titles import run_title
from hf_accel.tables import format_table, markdown_text
from hf_accel.tasks.texts import TEXTS

if TYPE_CHECKING:
    from hf_accel.hub.provenance import Origin

FOLDED_FROM_CLASSES = 20  # a longer per-class table is folded
CONFUSIONS_SHOWN = 5
PLOT_TITLES = {"accuracy": "Validation accuracy", "mean_average_precision": "Validation mAP", "confusion": "Confusion matrix",
               "per_class": "Precision, recall and F1 by class", "reliability": "Confidence and accuracy",
               "step_time": "Where the time of a step goes"}  # fmt: skip


def card_body(
    report: RunReport, recipe: Recipe, base: Origin | None, data: Origin, needs_package: bool, plots: list[str]
) -> str:
    """Everything below the metadata.

    Args:
        base: None when the weights were trained from scratch.
        needs_package: the model loads only after `import hf_accel.cifar_nets`.
        plots: paths of images, relative to the card.
    """
    sections = [
        _summary(report, recipe, base, data),
        _usage(recipe, needs_package, len(report.data.labels)),
        _results(report),
        _confidence(report),
        _per_class(report),
        _plots(plots),
        _data(report, recipe, data),
        _training(report),
        _environment(report),
        _origin(base),
        _again(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(report: RunReport, recipe: Recipe, base: Origin | None, data: Origin) -> str:
    title = run_title(recipe.model.name, data.name, len(report.data.labels))
    name = report.recipe if report.variant == "default" else f"{report.recipe} ({report.variant})"
    what = f"{_link(base)}, fine-tuned" if base else f"`{recipe.model.name}`, trained from random weights"
    text = f"# {markdown_text(title)}\n\n{what} on {_link(data, 'datasets/')}, {format_count(len(report.data.labels))} classes."
    if report.test is not None:
        how = ", with test-time augmentation" if report.has_several_views else ""
        words = TEXTS[report.task]
        main, f1 = words.scores.headlines[:2]
        text += (
            f" **{main.name} {format_score(getattr(report.test, main.key))}, macro F1 "
            f"{format_score(getattr(report.test, f1.key))}** on {format_count(report.data.test_rows)} test {words.unit}s{how}."
        )
    return f"{text} Recipe: {markdown_text(name)}."


def _link(source: Origin, prefix: str = "") -> str:
    return f"[{source.name}](https://huggingface.co/{prefix}{source.name})" if source.on_hub else f"`{source.name}`"


def _usage(recipe: Recipe, needs_package: bool, num_labels: int) -> str:
    lines = ["import hf_accel.cifar_nets  # registers the network; pip install hf_accel"] if needs_package else []
    texts = TEXTS[recipe.model.task]
    if recipe.data.channels not in (None, 3):
        return _usage_of_channels(lines, recipe.data.channels)
    lines += [
        "from transformers import pipeline",
        "",
        f'classify = pipeline("{texts.pipeline}", model="{CARD_PLACEHOLDER}")',
        f"print(classify({json.dumps(texts.sample)}{texts.arguments.format(labels=num_labels)}))",
    ]
    code = "\n".join(lines)
    return f"## Use it\n\n```python\n{code}\n```\n\n{texts.usage.replace('MODEL', CARD_PLACEHOLDER)}"


def _usage_of_channels(lines: list[str], channels: int) -> str:
    """The same for a model that `pipeline` would give colour images."""
    what = "grey images" if channels == 1 else f"images of {channels} channels"
    text = f"The model takes {what}; `pipeline` would give it colour images."
    if channels != 1:
        return f"## Use it\n\n```bash\nhf-accel predict {CARD_PLACEHOLDER} IMAGE\n```\n\n{text}"
    code = "\n".join(
        [
            *lines,
            "from PIL import Image",
            "from transformers import AutoImageProcessor, AutoModelForImageClassification",
            "",
            f'processor = AutoImageProcessor.from_pretrained("{CARD_PLACEHOLDER}")',
            f'model = AutoModelForImageClassification.from_pretrained("{CARD_PLACEHOLDER}")',
            'image = Image.open("photo.png").convert("L")',
            'logits = model(**processor(image, return_tensors="pt")).logits',
            "print(model.config.id2label[int(logits.argmax())])",
        ]
    )
    return f"## Use it\n\n```python\n{code}\n```\n\n{text}"


def _results(report: RunReport) -> str:
    if report.test is None:
        return "## Results\n\nThe test split was not scored."
    columns = {"test": report.test} | ({"validation": report.validation} if report.validation else {})
    measures = {measure.name: measure.key for measure in TEXTS[report.task].scores.measures} | {"Loss": "loss"}
    rows = [[name, *(format_score(getattr(s, key)) for s in columns.values())] for name, key in measures.items()]
    counts = {"test": report.data.test_rows, "validation": report.data.validation_rows}
    unit = TEXTS[report.task].unit
    rows.append([f"{unit.capitalize()}s", *(format_count(counts[name]) for name in columns)])
    how = (
        "The best checkpoint was chosen on the validation rows; the test rows were scored once, at the end."
        if report.validation
        else "Nothing was selected: the test rows were scored once, with the last weights."
    )
    if report.test.accuracy is not None and report.data.test_rows:
        low, high = wilson_interval(report.test.accuracy, report.data.test_rows)
        name = next(name.lower() for name, key in measures.items() if key == "accuracy")
        how += (
            f" The 95 % interval of the test {name}, for this number of {unit}s, is {low:.4f} to {high:.4f} (Wilson)."
        )
    if report.thresholds is not None:
        how += " F1 and the exact match are at the threshold of each label, chosen on the validation rows for the highest F1."
    return f"## Results\n\n{format_table(['', *columns], rows, 'markdown')}\n\n{' '.join([how, *report.score_notes])}"


def _confidence(report: RunReport) -> str:
    if report.calibration is None:
        return ""
    unit = TEXTS[report.task].unit
    how = (
        "The `pipeline` gives the model's own probabilities. `hf_accel_confidence` in config.json has the temperature that "
        "divides the logits for calibrated ones, the probability below which an answer is unsure, and the spread (the norm of "
        f"the logits about their mean) below which the {unit} is unlike those of the training."
    )
    used = " `hf-accel predict` uses all three." if unit == "image" else ""
    return f"### Confidence\n\n{' '.join(report.calibration.sentences(unit))} {how}{used}"


def _per_class(report: RunReport) -> str:
    if report.test is None or not report.test.per_class:
        return ""
    classes, unit = report.test.per_class, TEXTS[report.task].unit
    columns = TEXTS[report.task].scores.of_class
    scores = [[c["label"], *(format_score(c[key]) for key, _ in columns), c["support"]] for c in classes]
    text = format_table(["class", *(heading for _, heading in columns), f"{unit}s"], scores, "markdown")
    if len(classes) > FOLDED_FROM_CLASSES:
        text = f"<details><summary>{len(classes)} classes</summary>\n\n{text}\n\n</details>"
    confusions = largest_confusions(report.test.confusion, report.data.labels, CONFUSIONS_SHOWN)
    if confusions:
        listed = ", ".join(
            f"{markdown_text(true)} taken for {markdown_text(wrong)} ({count})" for true, wrong, count in confusions
        )
        text += f"\n\nMost frequent confusions on the test {unit}s: {listed}."
    return f"### Per class\n\n{text}"


def _plots(plots: list[str]) -> str:
    if not plots:
        return ""
    stems = [PurePosixPath(name).stem for name in plots]
    titles = [PLOT_TITLES.get(stem, stem.replace("_", " ").capitalize()) for stem in stems]
    pictures = (f"{title}:\n\n![{title}]({name})" for title, name in zip(titles, plots, strict=True))
    return "### Plots\n\n" + "\n\n".join(pictures)


def _data(report: RunReport, recipe: Recipe, data: Origin) -> str:
    unit = TEXTS[report.task].unit
    rows = [
        (f"Train / validation / test {unit}s", " / ".join(
            format_count(n) for n in (report.data.train_rows, report.data.validation_rows, report.data.test_rows))),
        ("Configuration", recipe.data.config),
        ("Revision", data.revision),
        ("Fingerprint of the rows used", report.data.fingerprint),
        (f"Unreadable {unit}s left out", len(report.data.skipped) or None),
    ]  # fmt: skip
    return f"## Data\n\n{_link(data, 'datasets/')}\n\n{_facts(rows)}"


def _training(report: RunReport) -> str:
    train = report.train
    facts = [
        ("Steps / epochs", f"{format_count(train.steps)} / {format_quantity(train.epochs)}"),
        ("Effective batch size", train.effective_batch_size),
        ("Processes", train.world_size),
        ("Time, optimisation only", _known(format_duration, train.seconds)),
        ("Of it, the classifier's inputs, computed once", _known(format_duration, train.feature_seconds)),
        ("Compilation, not in that time", _known(format_duration, train.compile_seconds)),
        (f"{TEXTS[report.task].rate_name}, optimisation only", _known(format_quantity, train.images_per_second)),
        ("Waiting for data", _known(format_percent, train.data_wait_fraction)),
        *((f"Peak memory {where}", format_gib(gib)) for gib, where in train.memory_figures),
        ("Energy, as the device measured it", _known(format_energy, train.energy_joules)),
        ("Final training loss", _known(format_score, train.final_loss)),
    ]
    text = f"## Training\n\n{_facts(facts)}\n\nTimes leave out evaluation, saving and warm-up steps."
    if report.settings:
        text += "\n\nArguments of the Trainer that differ from its defaults:\n\n"
        text += format_table(["argument", "value"], list(report.settings.items()), "markdown", "ll")
    if report.notes:
        text += "\n\nDecided by the software:\n\n" + "\n".join(f"- {note}" for note in report.notes)
    return text


def _known(write: Any, value: float | None) -> str | None:
    return None if value is None else write(value)


def _environment(report: RunReport) -> str:
    facts = [(name, value) for name, value in report.environment.items() if name != "command"]
    return f"## Environment\n\n{_facts(facts)}"


def _origin(base: Origin | None) -> str:
    if base is None:
        licence = (
            "The weights were trained from scratch, so no licence is inherited and none is stated: add `license:` to the "
            "header of this card before you share the model."
        )
        return f"## Licence\n\n{licence}"
    revision = f" at revision `{base.revision}`" if base.revision else ""
    if base.license:
        licence = f"Licence: `{base.license}`, copied from the base model."
    else:
        licence = (
            "The base model's licence was not found, so none is stated: look it up and add `license:` to the header of "
            "this card before you share the model."
        )
    return f"## Base model and licence\n\n{_link(base)}{revision}. {licence}"


def _again(report: RunReport) -> str:
    command = report.environment.get("command")
    text = "## Train it again\n\n```\nhf-accel train --recipe recipe.yaml\n```\n\n"
    text += (
        f"[recipe.yaml]({BESIDE_MODEL}recipe.yaml) holds every setting and [report.json]({BESIDE_MODEL}report.json) "
    )
    text += "every figure"
    return text + (f". It was trained by `{command}`." if command else ".")


def _facts(rows: Iterable[tuple[str, Any]]) -> str:
    """A two-column table of the facts that are known."""
    known = [[name, value] for name, value in rows if value is not None]
    return format_table(["", ""], known, "markdown", "ll")
