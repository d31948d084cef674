"""The model card: metadata that the Hub understands, and every figure of report.json that a reader needs to judge a model.

It is written into `model/` at the end of every run, pushed or not; what is unknown is left out or said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import EvalResult, HfApi, ModelCardData, RepoCard, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id

from hf_accel.card_text import card_body
from hf_accel.notebook import notebook_text
from hf_accel.publication import PLOTS, cleaned_report, finished_run, is_local, model_config
from hf_accel.recipe import Recipe, load_recipe
from hf_accel.report import RunReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

    from hf_accel.data import ImageSplit

LICENCE_TIMEOUT_SECONDS = 5
EXAMPLE_SIDE = 512  # pixels of an example's longer side, at most
# What the Hub itself shows for image classifiers: pictures of the user's own folder are theirs to publish.
PUBLIC_PICTURES = "https://huggingface.co/datasets/mishig/sample_images/resolve/main/{}.jpg"


@dataclass(frozen=True)
class Source:
    """A model or data set that a run started from, as far as it can be named to others."""

    name: str  # id on the Hub, or the last part of a local folder
    on_hub: bool
    revision: str | None = None  # commit
    license: str | None = None


def write_card(folder: Path, report: RunReport | None = None) -> Path:
    """Write `model/README.md` and `model/notebook.ipynb` of a run; returns the first's path.

    Asks the Hub for the base model's licence, and does without when it does not answer.

    Args:
        report: of a run that is about to finish, whose `report.json` is its last file; None reads that file.
    Raises:
        UserError: no report is given, and the folder is not that of a finished run.
    """
    recipe = finished_run(folder) if report is None else load_recipe(folder / "recipe.yaml")
    report, config = cleaned_report(folder, recipe, report), model_config(folder)
    base, data = base_model(recipe), data_set(recipe)
    metadata = card_metadata(report, recipe, config, base, data, examples=_examples(folder))
    plots = [path.relative_to(folder).as_posix() for pattern in PLOTS for path in sorted(folder.glob(pattern))]
    body = card_body(report, recipe, base, data, needs_package=needs_package(config), plots=plots)
    card = folder / "model" / "README.md"
    card.write_text(f"---\n{metadata.to_yaml()}\n---\n\n{body}", encoding="utf-8")
    if recipe.model.task == "image-classification":
        text = notebook_text(
            recipe,
            data.name,
            needs_package(config),
            local_data=is_local(recipe.data.name),
            has_examples=(folder / "model" / "examples" / "1.png").is_file(),
        )
        (folder / "model" / "notebook.ipynb").write_text(text, encoding="utf-8")
    return card


def card_metadata(
    report: RunReport,
    recipe: Recipe,
    config: dict[str, Any],
    base: Source | None,
    data: Source,
    examples: list[dict[str, Any]],
) -> ModelCardData:
    """The YAML block of the card.

    Args:
        config: of the saved model.
        base: None when the weights were trained from scratch.
        examples: entries of the `widget` list.
    """
    task, base_on_hub = recipe.model.task, base is not None and base.on_hub
    return ModelCardData(
        license=base.license if base else None,
        # With "transformers" the Hub shows a snippet that cannot load a network which only this package registers.
        library_name="hf_accel" if needs_package(config) else "transformers",
        pipeline_tag=task,
        tags=[task, "hf_accel"],
        base_model=base.name if base_on_hub else None,
        base_model_relation="finetune" if base_on_hub else None,
        base_model_revision=base.revision if base_on_hub else None,
        datasets=[data.name] if data.on_hub else None,
        metrics=["accuracy", "f1"],
        widget=examples or None,
        model_name=report.recipe if report.variant == "default" else f"{report.recipe}-{report.variant}",
        eval_results=_results(report, recipe, data) or None,
    )


def _results(report: RunReport, recipe: Recipe, data: Source) -> list[EvalResult]:
    """Accuracy and macro F1 on the test rows, for `model-index`."""
    if report.test is None:
        return []
    where = {
        "task_type": recipe.model.task,
        "task_name": recipe.model.task.replace("-", " ").capitalize(),
        "dataset_type": data.name if data.on_hub else "imagefolder" if is_local(recipe.data.name) else data.name,
        "dataset_name": data.name,
        "dataset_config": recipe.data.config,
        "dataset_split": scored_split(report.notes),
        "dataset_revision": data.revision,
        "dataset_args": {"num_rows": report.data.test_rows},
    }
    views = recipe.data.test_time_augmentation
    how = {} if views == "none" else {"test_time_augmentation": views}
    scores = [
        ("accuracy", "Accuracy", report.test.accuracy, how or None),
        ("f1", "Macro F1", report.test.f1_macro, {"average": "macro", **how}),
    ]
    return [
        EvalResult(metric_type=kind, metric_name=name, metric_value=value, metric_args=args, **where)
        for kind, name, value, args in scores
        if value is not None
    ]


def scored_split(notes: list[str]) -> str:
    """The data set's own name of the rows that were scored; `load_splits` notes when it is not "test"."""
    if any("the validation split is the test" in note for note in notes):
        return "validation"
    return "train" if any("of train is the test" in note for note in notes) else "test"


def needs_package(config: dict[str, Any]) -> bool:
    """Whether only `import hf_accel.cifar_nets` makes the model loadable: its networks are named cifar_*, timm's are not."""
    return str(config.get("architecture", "")).startswith("cifar_")


def base_model(recipe: Recipe) -> Source | None:
    """Where the weights came from; None when they were random."""
    name = recipe.model.name
    if not recipe.model.pretrained:
        return None
    if is_local(name):
        return Source(Path(name).resolve().name, on_hub=False, license=_folder_license(Path(name)))
    revision = _cached_commit(name, "model", recipe.model.revision, ("config.json",)) or recipe.model.revision
    return Source(name, on_hub=True, revision=revision, license=_hub_license(name, revision))


def data_set(recipe: Recipe) -> Source:
    """The data set as others can find it."""
    name = recipe.data.name
    if is_local(name):
        return Source(Path(name).resolve().name, on_hub=False)
    if "/" not in name:  # built in
        return Source(name, on_hub=False)
    commit = _cached_commit(name, "dataset", recipe.data.revision, ("README.md",))
    return Source(name, on_hub=True, revision=commit or recipe.data.revision)


def _cached_commit(repo_id: str, kind: str, revision: str | None, files: Iterable[str]) -> str | None:
    """The commit that was downloaded: the Hub may have moved on since."""
    validate_repo_id(repo_id)
    for file in files:
        path = try_to_load_from_cache(repo_id, file, revision=revision, repo_type=kind)
        if isinstance(path, str):
            parts = Path(path).parts
            return parts[parts.index("snapshots") + 1]
    return None


def _hub_license(repo_id: str, revision: str | None) -> str | None:
    try:
        info = HfApi().model_info(repo_id, revision=revision, timeout=LICENCE_TIMEOUT_SECONDS)
    except Exception:  # offline, private, gone: the card says that the licence is unknown
        return None
    return info.card_data.get("license") if info.card_data else None


def _folder_license(folder: Path) -> str | None:
    """From a folder's card, or from the configuration of a timm model."""
    card, config = folder / "README.md", folder / "config.json"
    if card.is_file():
        found = RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
        if found:
            return found
    if config.is_file():
        return (json.loads(config.read_text(encoding="utf-8")).get("pretrained_cfg") or {}).get("license")
    return None


def write_examples(folder: Path, split: ImageSplit, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """Keep three test images with the model's answers in `model/examples/`, for the card and the demo page.

    Of a local folder nothing is kept: its pictures may be private, and a push would publish them.
    """
    if is_local(load_recipe(folder / "recipe.yaml").data.name):
        return
    import torch
    from PIL import Image

    examples = folder / "model" / "examples"
    examples.mkdir(exist_ok=True)
    by_class = np.argsort(split.labels, kind="stable")
    rows = [by_class[position] for position in (0, len(by_class) // 2, len(by_class) - 1)]
    entries = []
    model.eval()
    for number, row in enumerate(rows, start=1):
        image = Image.fromarray(split.read(row))
        with torch.inference_mode():
            pixels = processor(image, return_tensors="pt")["pixel_values"].to(model.device, torch.float32)
            likely = model(pixel_values=pixels).logits[0].float().softmax(-1).topk(min(3, len(split.label_names)))
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(examples / f"{number}.png")
        answers = [
            {"label": split.label_names[label], "score": round(score, 4)}
            for score, label in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        ]
        title = split.label_names[split.labels[row]]
        entries.append({"src": f"examples/{number}.png", "example_title": title, "output": answers})
    (examples / "examples.json").write_text(json.dumps(entries, indent=2), encoding="utf-8")


def _examples(folder: Path) -> list[dict[str, Any]]:
    """Entries of the card's `widget` list: the run's own examples, else public pictures."""
    kept = folder / "model" / "examples" / "examples.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    return [
        {"src": PUBLIC_PICTURES.format(name), "example_title": name.capitalize()}
        for name in ("tiger", "teapot", "palace")
    ]
