"""Which names of folders and of splits mean train, validation and test: one table for every kind of data set.

A name is a split's when it is one of `SPLIT_WORDS`, alone or together with words of `NOUNS` and a year, in upper or
lower case, with or without `_`, `-`, `.` or a space between them: `Training`, `test_set`, `val-images`, `images.train`,
`validationData`, `train2017`. Any other name that only resembles one of these (`test1`, `seg_train` next to `seg_test`)
is never taken for a split, nor for a class: the user is asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
NOUNS = (
    *("data", "dataset", "set", "split", "subset", "part", "folder", "dir", "directory", "sample", "samples"),
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "file", "files"),
)
UNLABELLED_WORDS = ("holdout", "unlabelled", "unlabeled")  # their rows have no role, and they are not classes either

_ROLES = {word: role for role, words in SPLIT_WORDS.items() for word in words}
_SEPARATOR = r"[\W_]*+"
_LONGEST = 64  # letters: longer names are not splits, and matching one could take long


def _one_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


# No group is possessive: before Python 3.11.5 one that can backtrack matches what it should not,
# https://github.com/python/cpython/issues/106052.
_NOUN = f"(?:(?:{_one_of(NOUNS)}){_SEPARATOR})*"
_SPLIT = re.compile(f"{_NOUN}({_one_of(_ROLES)}){_SEPARATOR}{_NOUN}(?:(?:19|20)\\d\\d)?{_SEPARATOR}")
_NUMBERED = re.compile(
    f"{_NOUN}(?:{_one_of((*_ROLES, *UNLABELLED_WORDS, 'hold_out', 'hold-out'))})(?:{_SEPARATOR}(?:{_one_of(NOUNS)}))*"
    f"(?:{_SEPARATOR}v?\\d++|[\\W_]++(?:old|new|all|full|final|small|large|clean|raw|copy|[a-z](?![a-z])))*{_SEPARATOR}"
)


def _matched(pattern: re.Pattern[str], name: str) -> re.Match[str] | None:
    word = name.strip().casefold()
    return pattern.fullmatch(word) if len(word) <= _LONGEST else None


def split_role(name: str) -> str | None:
    """train, validation or test, or None for a name that is not a split's.

    >>> [split_role(name) for name in ("Training", "test_set", "valImages", "train2017", "trains", "test1")]
    ['train', 'test', 'validation', 'train', None, None]
    """
    match = _matched(_SPLIT, name)
    return _ROLES[match[1]] if match else None


def resembling_splits(names: Iterable[str]) -> list[str]:
    """Those of some neighbouring folders that resemble splits: `train`, `test1`; `seg_train` where there is `seg_test`."""
    names = list(names)
    found = {name for name in names if _matched(_NUMBERED, name) or split_role(name)}
    by_rest: dict[tuple[str, ...], dict[str, str]] = defaultdict(
        dict
    )  # what is left of a name without its split word -> role -> name
    for name in names:
        tokens = re.split(r"[\W_]+", name.strip().casefold())
        for place in (0, -1):
            if len(tokens) > 1 and tokens[place] in _ROLES:
                rest = tuple(tokens[1:] if place == 0 else tokens[:-1])
                by_rest[rest][_ROLES[tokens[place]]] = name
    for namesakes in by_rest.values():
        if len(namesakes) > 1:
            found |= set(namesakes.values())
    return [name for name in names if name in found]
