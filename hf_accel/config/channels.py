"""What needs images of three channels, refused where `data.channels` asks for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

COLOUR = ("color_jitter", "grayscale", "randaugment", "trivial_augment", "augmix", "chain")


def channel_problems(
    model: dict[str, Any], data: dict[str, Any], training: dict[str, Any], compress: Any = None
) -> Iterator[str]:
    """Messages about settings that cannot be combined with `data.channels`.

    Args:
        compress: the section of that name; None: there is none.
    """
    channels, augment = data.get("channels"), data.get("augment")
    if channels in (None, 3):
        return
    sections: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("data.augment.", augment if isinstance(augment, dict) else {}, COLOUR),
        ("model.", model, ("teacher", "whiten_stem")),
        ("training.", training, ("push_to_hub", "quantization")),
        ("", {"compress": compress}, ("compress",)),
    )
    for prefix, section, names in sections:
        for name in names:
            if section.get(name) not in (None, False):
                yield (
                    f"{prefix}{name} needs images of three channels, and data.channels is {channels}. Leave one of the two out."
                )
