"""The packages that this one needs, those that are optional, and which of them are installed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import hf_accel

_PYPROJECT = Path(hf_accel.__file__).parents[1] / "pyproject.toml"
_OF_DEVELOPERS = ("test",)


@dataclass(frozen=True)
class Package:
    """A package that pyproject.toml names.

    Attributes:
        expected: its versions, as ">=2.11".
        extra: the extra of hf_accel that brings it; None: always needed.
        installed: its version; None: it is not installed.
    """

    name: str
    expected: str
    extra: str | None
    installed: str | None

    @property
    def is_met(self) -> bool:
        return self.installed is not None and Requirement(f"x{self.expected}").specifier.contains(
            Version(self.installed), prereleases=True
        )


def packages() -> list[Package]:
    """Those that hf_accel declares, the ones that are always needed first."""
    found = []
    for extra, requirements in declared().items():
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""}):
                name = requirement.name
                found.append(Package(name, str(requirement.specifier), extra, installed_version(name)))
    return found


def declared() -> dict[str | None, list[str]]:
    """Extra -> what it requires; None: what is always required.

    The checkout that this code runs from says it in pyproject.toml; of an installed package, its metadata do. Those of an
    editable installation are as old as the installation.
    """
    try:
        project = tomllib.loads(_PYPROJECT.read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        project = {}
    if project.get("name") != "hf_accel":  # the folder of installed packages may hold anybody's file
        return _of_metadata()
    extras = {name: texts for name, texts in project["optional-dependencies"].items() if name not in _OF_DEVELOPERS}
    return {None: project["dependencies"], **extras}


def _of_metadata() -> dict[str | None, list[str]]:
    try:
        metadata = importlib.metadata.metadata("hf_accel")
    except importlib.metadata.PackageNotFoundError:
        return {}
    texts = metadata.get_all("Requires-Dist") or []
    needed = [text for text in texts if _applies(text, "")]
    extras = [name for name in metadata.get_all("Provides-Extra") or [] if name not in _OF_DEVELOPERS]
    return {
        None: needed,
        **{name: [text for text in texts if text not in needed and _applies(text, name)] for name in extras},
    }


def _applies(text: str, extra: str) -> bool:
    """Whether it is asked for on this system, with this extra."""
    marker = Requirement(text).marker
    return marker is None or marker.evaluate({"extra": extra})


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
