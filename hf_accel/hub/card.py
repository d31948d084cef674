"""The model card: metadata that the Hub understands, and every figure of report.json that a reader needs to judge a model.

It is written into `model/` at the end of every run, pushed or not; unknown facts are left out or said to be unknown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hf_accel.config.recipe import Recipe
from hf_accel.files import write_whole
from hf_accel.hub.card_text import card_body
from hf_accel.hub.examples import read_examples
from hf_accel.hub.notebook import notebook_text
from hf_accel.hub.provenance import Origin, base_model, data_set
from hf_accel.hub.publication import BESIDE_MODEL, PLOTS, cleaned_report, is_local
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.tasks.texts import TEXTS


def write_card(run: FinishedRun) -> Path:
    """Write `model/README.md` of a run; returns its path.

    It asks the Hub for the base model's licence; if the Hub does not answer, the card states none.
    """
    folder, recipe = run.folder, run.recipe
    report, config = cleaned_report(run), model_config(folder)
    base, data = base_model(recipe), data_set(recipe)
    metadata = card_metadata(report, recipe, config, base, data, examples=read_examples(folder, recipe))
    plots = [
        BESIDE_MODEL + path.relative_to(folder.path).as_posix()
        for pattern in PLOTS
        for path in sorted(folder.path.glob(pattern))
    ]
    body = card_body(report, recipe, base, data, needs_package=needs_package(config), plots=plots)
    return write_whole(folder.card, f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def write_notebook(run: FinishedRun) -> Path:
    """Write `model/notebook.ipynb` of a run; returns its path."""
    folder, recipe = run.folder, run.recipe
    text = notebook_text(
        recipe,
        data_set(recipe).name,
        needs_package(model_config(folder)),
        local_data=is_local(recipe.data.name),
        has_examples=any(folder.examples.glob("1.*")),
    )
    return write_whole(folder.notebook, text)


def model_config(folder: RunFolder) -> dict[str, Any]:
    """`model/config.json` of a run."""
    return json.loads(folder.model_config.read_text(encoding="utf-8"))


def card_metadata(
    report: RunReport,
    recipe: Recipe,
    config: dict[str, Any],
    base: Origin | None,
    data: Origin,
    examples: list[dict[str, Any]],
) -> ModelCardData:
    """The YAML block of the card.

    Args:
        config: the configuration of the saved model.
        base: None when the weights were trained from scratch.
        examples: entries of the `widget` list.
    """
    task, public_base = recipe.model.task, base if base is not None and base.on_hub else None
    return ModelCardData(
        license=base.license if base else None,
        # With "transformers" the Hub shows a snippet that cannot load a network which only this package registers.
        library_name="hf_accel" if needs_package(config) else "transformers",
        pipeline_tag=TEXTS[task].pipeline,
        tags=[task, "hf_accel"],
        base_model=public_base.name if public_base else None,
        base_model_relation="finetune" if public_base else None,
        base_model_revision=public_base.revision if public_base else None,
        datasets=[data.name] if data.on_hub else None,
        metrics=[measure.hub for measure in TEXTS[task].scores.headlines[:2]],
        widget=examples or None,
        # without examples the Hub's widget would offer pictures of its own, of classes that the model does not know
        inference=None if examples else False,
        model_name=report.recipe if report.variant == "default" else f"{report.recipe}-{report.variant}",
        eval_results=_results(report, recipe, data) or None,
    )


def _results(report: RunReport, recipe: Recipe, data: Origin) -> list[EvalResult]:
    """The two main figures of the test rows, for `model-index`."""
    if report.test is None:
        return []
    where: dict[str, Any] = {
        "task_type": TEXTS[recipe.model.task].pipeline,
        "task_name": recipe.model.task.replace("-", " ").capitalize(),
        "dataset_type": data.name
        if data.on_hub
        else TEXTS[recipe.model.task].local_data
        if is_local(recipe.data.name)
        else data.name,
        "dataset_name": data.name,
        "dataset_config": recipe.data.config,
        "dataset_split": report.data.test_split,
        "dataset_revision": data.revision,
        "dataset_args": {"num_rows": report.data.test_rows},
    }
    views = recipe.data.test_time_augmentation
    how = {} if views == "none" else {"test_time_augmentation": views}
    results = []
    for measure in TEXTS[report.task].scores.headlines[:2]:
        value, args = getattr(report.test, measure.key), {"average": "macro", **how} if measure.hub == "f1" else how
        if value is not None:
            named: dict[str, Any] = {
                "metric_type": measure.hub,
                "metric_name": measure.name,
                "metric_args": args or None,
            }
            results.append(EvalResult(metric_value=value, **named, **where))
    return results


def needs_package(config: dict[str, Any]) -> bool:
    """Whether only `import hf_accel.cifar_nets` makes the model loadable.

    Its networks are named cifar_*, timm's are not; its classifier on an encoder has a type of its own.
    """
    return str(config.get("architecture", "")).startswith("cifar_") or config.get("model_type") == "hf_accel_encoder"
