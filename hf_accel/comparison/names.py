"""The recipes that a command line names, globs included, and the folder of their comparison."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hf_accel.config.recipe import shipped_recipes
from hf_accel.errors import UserError, did_you_mean

_LONGEST_FOLDER = 100  # characters


def is_glob(word: str) -> bool:
    """Whether a word stands for all recipes that match it; a file that has such a name stands for itself."""
    return glob.has_magic(word) and not os.path.isfile(word)


def expand_recipes(words: Sequence[str]) -> list[str]:
    """The recipes that the words of `--recipe` mean, in their order.

    A glob with a slash, or with the ending of a YAML file, matches files; any other matches the names of the shipped
    recipes. A recipe that several globs match is taken once; one that is named twice is not, because that is a mistake.

    Raises:
        UserError: a glob that nothing matches.

    >>> expand_recipes(["speedrun_cifar10_9?"])
    ['speedrun_cifar10_94', 'speedrun_cifar10_96']
    """
    named = {word for word in words if not is_glob(word)}
    found: list[str] = []
    for word in words:
        if is_glob(word):
            found += [name for name in _matches(word) if name not in named and name not in found]
        else:
            found.append(word)
    return found


def folder_name(names: Sequence[str]) -> str:
    """The name of the folder of a comparison: of all its recipes, or of the first and of how many more, if that is too long."""
    names = list(dict.fromkeys(names))
    joined = "+".join(names)
    if len(joined) <= _LONGEST_FOLDER:
        return joined
    # a hash, because another comparison may start with the same recipe
    return f"{names[0][:_LONGEST_FOLDER]}+{len(names) - 1}_more-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def _matches(pattern: str) -> list[str]:
    if "/" in pattern or os.sep in pattern or pattern.endswith((".yaml", ".yml")):
        paths = sorted(map(Path, glob.glob(os.path.expanduser(pattern), recursive=True)))
        known = [str(p) for p in paths if p.suffix in (".yaml", ".yml") and not p.stem.startswith("_") and p.is_file()]
        if not known:
            raise UserError(f"--recipe {pattern}: no recipe file matches. {_nearest_files(pattern)}")
        return known
    shipped = shipped_recipes()
    known = [name for name in shipped if fnmatchcase(name, pattern)]
    if not known:
        near = did_you_mean(_without_wildcards(pattern), shipped)
        raise UserError(
            f"--recipe {pattern}: no shipped recipe matches. {near} `hf-accel recipe list` shows all of them."
        )
    return known


def _nearest_files(pattern: str) -> str:
    folder = Path(os.path.expanduser(pattern)).parent
    files = [str(p) for ending in ("yaml", "yml") for p in folder.glob(f"*.{ending}")] if folder.is_dir() else []
    if not files:
        return f"There are no YAML files in {folder}."
    return did_you_mean(_without_wildcards(pattern), files)


def _without_wildcards(pattern: str) -> str:
    return "".join(letter for letter in pattern if letter not in "*?[]")
