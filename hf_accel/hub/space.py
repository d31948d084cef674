"""A folder that is ready to be a Space."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

from hf_accel.errors import UserError
from hf_accel.tasks.texts import TEXTS

ABOUT = """
{} Made with `hf-accel demo --space`; upload this folder with

    hf upload YOUR_NAME/SPACE_NAME . --repo-type space
"""


def write_space(model: str, title: str, space: Path, task: str) -> None:
    """Write `app.py`, `requirements.txt`, the Space's card and, for a local model, the weights.

    Args:
        task: that the model is for.

    Raises:
        UserError: `space` holds files already, or the model's config.json cannot be read.
    """
    if space.exists() and (not space.is_dir() or any(space.iterdir())):
        raise UserError(f"--space {space}: exists already and is not empty; nothing was written. Name another folder.")
    from huggingface_hub import SpaceCardData

    from hf_accel.hub.card import needs_package
    from hf_accel.hub.publication import MODEL_FILES

    # The Space gets the source text of the page, so it does what `hf-accel demo` does.
    words = TEXTS[task]
    source = Path(__file__).with_name(f"{words.app}.py").read_text(encoding="utf-8")
    source = re.sub(r"^TITLE = .*$", lambda _: f"TITLE = {title!r}", source, count=1, flags=re.MULTILINE)
    requirements = [f"{name}=={_release(name)}" for name in words.app_needs]
    folder = Path(model)
    if folder.is_dir():
        config = _config(folder / "config.json")
        files = (path for pattern in MODEL_FILES for path in folder.glob(pattern))
        for path in (path for path in files if path.suffix not in (".md", ".ipynb")):
            target = space / "model" / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if needs_package(config):
            requirements.append(f"hf_accel=={_release('hf_accel')}")
    else:
        source = source.replace('MODEL = "model"', f"MODEL = {model!r}")
        space.mkdir(parents=True, exist_ok=True)
    card = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=_release("gradio"),
        app_file="app.py",
        models=None if folder.is_dir() else [model],
    )
    (space / "app.py").write_text(source, encoding="utf-8")
    (space / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (space / "README.md").write_text(f"---\n{card.to_yaml()}\n---\n{ABOUT.format(words.app_does)}", encoding="utf-8")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}), expected the config of a model. Nothing was written."
        ) from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no settings, expected the config of a model. Nothing was written.")
    return config


def _release(name: str) -> str:
    """The installed version; a local build (2.11.0+cpu) is not on the package index."""
    return importlib.metadata.version(name).partition("+")[0]
