"""`data.resize`: how an image becomes square, said by a processor of upstream, so that a saved model does it everywhere.

crop keeps the middle of an image, squash the whole of it at another aspect ratio, letterbox the whole of it between bars. timm
has all three as `crop_mode`, with bars of the mean colour. Processors of transformers have them as a size by the short edge,
by both edges, or by the most that both may be, with a centre crop that adds black bars. Where a class of its own kind cannot be
set so, `CLIPImageProcessor` with the same size, mean and std takes its place. What a processor then does is measured.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from transformers import CLIPImageProcessor
from transformers.image_processing_utils import BaseImageProcessor

from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.processors import is_timm

Mode = Literal["crop", "squash", "letterbox"]
TIMM_MODES = {"crop": "center", "squash": "squash", "letterbox": "border"}


def with_resize(processor: BaseImageProcessor, mode: Mode | None) -> BaseImageProcessor:
    """A processor that makes images of the same size in this way; None: the processor as it is.

    Raises:
        UserError: neither its class nor the usual one can do it.
    """
    if mode is None or _does(processor, mode):
        return processor
    if is_timm(processor):
        config = timm_settings(processor.data_config, mode)
        architecture: str = processor.architecture  # type: ignore[attr-defined]  # upstream sets it from a keyword
        return type(processor)(pretrained_cfg=config, architecture=architecture)
    now = Preprocessing.of(processor)
    settings = _settings(now, mode)
    own = {**processor.to_dict(), **settings}
    usual = {
        **settings,
        "do_resize": True,
        "do_convert_rgb": now.channels == 3,
        "resample": processor.to_dict().get("resample"),
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(now.mean),
        "image_std": list(now.std),
    }
    made = [_made(type(processor), own)] + ([] if now.bgr else [_made(CLIPImageProcessor, usual)])
    found = next((candidate for candidate in made if candidate is not None and _does(candidate, mode)), None)
    if found is None:
        raise UserError(
            f"data.resize: {mode} cannot be said by {type(processor).__name__}, so the saved model would not do it. Leave "
            "data.resize out, or choose another model; those of timm can do all three."
        )
    return found


def timm_settings(config: dict[str, Any], mode: Mode) -> dict[str, Any]:
    """The `pretrained_cfg` of a timm model with this mode; squash and letterbox show the whole image."""
    whole = {} if mode == "crop" else {"crop_pct": 1.0}
    return {**config, "crop_mode": TIMM_MODES[mode], **whole}


def mode_of(preprocessing: Preprocessing) -> Mode | None:
    """What a processor does; None: something else, which only itself can do."""
    if preprocessing.processor is not None:
        return None
    if preprocessing.pad is not None:
        return "letterbox"
    return "crop" if isinstance(preprocessing.resize, int) else "squash"


def _does(processor: BaseImageProcessor, mode: Mode) -> bool:
    now = Preprocessing.of(processor)
    is_whole = now.resize == (now.height, now.width)
    return mode_of(now) == mode and (mode == "crop" or is_whole)


def _settings(now: Preprocessing, mode: Mode) -> dict[str, Any]:
    square = {"height": now.height, "width": now.width}
    size = {
        "crop": {"shortest_edge": max(now.height, now.width)},
        "squash": square,
        "letterbox": {"max_height": now.height, "max_width": now.width},
    }[mode]
    return {"size": size, "do_center_crop": mode != "squash", "crop_size": square}


def _made(kind: type[BaseImageProcessor], settings: dict[str, Any]) -> BaseImageProcessor | None:
    """A processor of these settings; None where its class does not take them, or makes images of several sizes."""
    quiet = logging.getLogger("hf_accel.inputs.preprocessing")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # a class that reads a setting in its own way is not the user's processor
    try:
        made = kind.from_dict(settings)
        Preprocessing.of(made)
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        quiet.setLevel(level)
    return made
