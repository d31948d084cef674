"""The origin of a run's weights and images, as far as others can find it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, RepoCard, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id

from hf_accel.config.recipe import Recipe
from hf_accel.hub.publication import is_local

LICENCE_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Origin:
    """A model or data set that a run started from, as far as it can be named to others."""

    name: str  # id on the Hub, or the last part of a local folder
    on_hub: bool
    revision: str | None = None  # commit
    license: str | None = None


def base_model(recipe: Recipe) -> Origin | None:
    """Where the weights came from; None when they were random."""
    name = recipe.model.name
    if not recipe.model.pretrained:
        return None
    if is_local(name):
        return Origin(Path(name).resolve().name, on_hub=False, license=_folder_license(Path(name)))
    revision = _cached_commit(name, "model", recipe.model.revision, ("config.json",)) or recipe.model.revision
    return Origin(name, on_hub=True, revision=revision, license=_hub_license(name, revision))


def data_set(recipe: Recipe) -> Origin:
    """The data set as others can find it."""
    name = recipe.data.name
    if is_local(name):
        return Origin(Path(name).resolve().name, on_hub=False)
    if "/" not in name:  # built in
        return Origin(name, on_hub=False)
    commit = _cached_commit(name, "dataset", recipe.data.revision, ("README.md",))
    return Origin(name, on_hub=True, revision=commit or recipe.data.revision)


def _cached_commit(repo_id: str, kind: str, revision: str | None, files: Iterable[str]) -> str | None:
    """The commit that was downloaded: the Hub may have newer ones."""
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
    """The licence that a folder's card or the configuration of a timm model states."""
    card, config = folder / "README.md", folder / "config.json"
    if card.is_file():
        found = RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
        if found:
            return found
    if config.is_file():
        return (json.loads(config.read_text(encoding="utf-8")).get("pretrained_cfg") or {}).get("license")
    return None
