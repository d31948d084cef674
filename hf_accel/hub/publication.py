"""The part of a run that may leave this machine: an allow list of files, and text without local paths or secrets.

An allow list, because a folder fills up with files nobody thought of: `training_args.bin` and the optimizer's state are
pickles, which run code where they are opened and hold tokens and paths. Label names are never touched, though some look
like paths ("/m/01yrx").
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub

from hf_accel.config.recipe import Recipe
from hf_accel.config.yaml_text import dump_yaml
from hf_accel.privacy import cleaned_text as without_secrets_and_paths
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
EXAMPLES = ("examples/*.png", "examples/*.txt")
MODEL_FILES = (
    *WEIGHTS,
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model"),
    *("README.md", "notebook.ipynb", *EXAMPLES),
)
PLOTS = ("*.png", "*.svg", "plots/*.png", "plots/*.svg")
TEXT_SUFFIXES = (".json", ".md", ".ipynb", ".svg")
SECRET_SETTING = "hub_token"

# How the card and the notebook name the model until it has an id on the Hub.
CARD_PLACEHOLDER = "path/to/this/folder"
BESIDE_MODEL = "../"  # begins the card's links to files of the run that are not in the model's folder
NOTEBOOK_PLACEHOLDER = 'MODEL = \\".\\"'


def published_files(run: FinishedRun, repo_id: str) -> dict[str, bytes | Path]:
    """Everything of a run that is uploaded: path in the repository -> the cleaned text, or the file to read."""
    folder, texts = run.folder, PrivateTexts(run.folder.path, run.recipe)
    paths: dict[str, Path] = {}
    model_files = [pattern for pattern in MODEL_FILES if pattern not in EXAMPLES or publishes_examples(run.recipe)]
    for root, patterns in ((folder.model, model_files), (folder.path, PLOTS)):
        for pattern in patterns:
            paths |= {path.relative_to(root).as_posix(): path for path in sorted(root.glob(pattern))}
    files: dict[str, bytes | Path] = {**paths}
    for name, path in paths.items():
        if path.suffix in TEXT_SUFFIXES:
            text = path.read_text(encoding="utf-8")
            if name == folder.card.name:
                # in a repository, what lies next to the folder of the model lies next to the card
                text = text.replace(CARD_PLACEHOLDER, repo_id).replace(f"]({BESIDE_MODEL}", "](")
            if name == folder.notebook.name:
                text = text.replace(NOTEBOOK_PLACEHOLDER, f'MODEL = \\"{repo_id}\\"')
            files[name] = texts.removed_from(text).encode()
    with tempfile.TemporaryDirectory() as scratch:
        cleaned_report(run).save(scratch)
        written = RunFolder(scratch)
        for path in (written.report, written.history):
            files[path.name] = texts.removed_from(path.read_text(encoding="utf-8")).encode()
    files[folder.recipe.name] = cleaned_recipe(run).encode()
    return files


def cleaned_recipe(run: FinishedRun) -> str:
    """The run's recipe as YAML, as it may be shown to anyone."""
    return dump_yaml(PrivateTexts(run.folder.path, run.recipe).clean(run.recipe.to_dict()))


def cleaned_report(run: FinishedRun) -> RunReport:
    """The run's report as it may be shown to anyone."""
    texts, report = PrivateTexts(run.folder.path, run.recipe), run.report
    return replace(
        report,
        settings=texts.clean(report.settings),
        notes=texts.clean(report.notes),
        environment=texts.clean(report.environment),
        data=replace(report.data, name=texts.clean(report.data.name), skipped=texts.clean(report.data.skipped)),
        model=replace(report.model, name=texts.clean(report.model.name)),
        train=replace(report.train, compile_failure=texts.clean(report.train.compile_failure)),
    )


def publishes_examples(recipe: Recipe) -> bool:
    """Whether test rows may be published: those of a local folder only if the recipe says so, they may be private."""
    asked = recipe.push.examples
    return not is_local(recipe.data.name) if asked is None else asked


def is_local(name: str) -> bool:
    """Whether the name of a model or a data set is a folder of this machine, not an id on the Hub."""
    return name.startswith(("/", "./", "../", "~")) or Path(name).exists()


class PrivateTexts:
    """The tokens and the folders of this machine that a run knows of, and how they are taken out of a text.

    A folder becomes its last part, because `photos` says what `/home/jane/photos` does.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        tokens = {huggingface_hub.get_token(), recipe.training.get(SECRET_SETTING)}
        named = (recipe.data.name, recipe.model.name, recipe.model.teacher)
        sources = {Path(name) for name in named if name is not None and is_local(name)}
        paths = {folder, Path.cwd(), recipe.output_dir, *sources}
        paths |= {path.resolve() for path in paths}
        names = {str(path): path.name for path in paths if path.is_absolute() and len(path.parts) > 1}
        names |= {str(Path.home()): "~"} if len(Path.home().parts) > 1 else {}
        names |= {token: "***" for token in tokens if token}
        self.everywhere = _patterns(names)
        # The command line names a folder relative to wherever it was typed: jane/photos for /home/jane/photos.
        sources |= {path.resolve() for path in sources}
        tails = {"/".join(p.parts[start:]): p.name for p in sources for start in range(1, len(p.parts) - 1)}
        tails |= {str(path): path.name for path in sources if not path.is_absolute()}
        self.in_figures = _patterns(tails)

    def removed_from(self, text: str) -> str:
        """A whole file's text without the absolute paths and the tokens that are known."""
        for pattern, replacement in self.everywhere:
            text = pattern.sub(replacement, text)
        return text

    def clean(self, value: Any) -> Any:
        """Clean all texts in nested lists and dictionaries, of any other absolute path too; the secret setting goes."""
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items() if key != SECRET_SETTING}
        if isinstance(value, list | tuple):
            return [self.clean(item) for item in value]
        if not isinstance(value, str):
            return value
        value = self.removed_from(value)
        for pattern, replacement in self.in_figures:
            value = pattern.sub(replacement, value)
        if value.startswith(("./", "../", "~/", os.sep)) and "\n" not in value:
            return Path(value).name
        return without_secrets_and_paths(value)


def _patterns(names: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """What to look for and its replacement for `re.sub`, the longest first: a folder before the home folder it lies in."""
    patterns = []
    for text, name in sorted(names.items(), key=lambda item: -len(item[0])):
        before = r"(?<!\w)" if text.startswith("/") else r"(?<![\w/])"
        patterns.append((re.compile(rf"{before}{re.escape(text)}(?![\w-])"), name.replace("\\", r"\\")))
    return patterns
