"""A model for images of another number of channels: `data.channels`.

The first layer is timm's `adapt_input_conv` of the one for colour images: its channels are summed for grey images, and repeated
in turn for more, so that its answers keep their size. The saved model states its channels as upstream does (`in_chans` of timm,
`num_channels` of transformers), and loads without this package.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from timm.models import adapt_input_conv
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig

from hf_accel.errors import UserError
from hf_accel.inputs.processors import channels_of, timm_channels, with_channels

if TYPE_CHECKING:
    from hf_accel.models.load import LoadedModel

NO_PIPELINE = "`pipeline` gives a model colour images, which this one cannot take"


def set_channels(loaded: LoadedModel, channels: int | None) -> None:
    """Make a model take images of so many channels, in place; None: as many as it does.

    Raises:
        UserError: the architecture, or its processor, is for one number of channels only.
    """
    own = channels_of(loaded.processor)
    if channels is None or channels == own:
        return
    config = _for_channels(loaded.model.config, channels)
    loaded.model, adapted = _adapted(loaded.model, config, own, channels)
    loaded.processor = with_channels(loaded.processor, channels)
    loaded.notes.append(
        f"{adapted}: adapted from {own} to {channels} channels by timm. {NO_PIPELINE}: use hf-accel predict"
    )


def _for_channels(config: PreTrainedConfig, channels: int) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    if isinstance(config, TimmWrapperConfig):
        own: Any = config  # a config keeps keywords that it has no field for
        own.model_args = {**(own.model_args or {}), "in_chans": channels}
        own.pretrained_cfg = timm_channels(own.pretrained_cfg, channels)
        return config
    owner: Any = config if hasattr(config, "num_channels") else getattr(config, "vision_config", None)
    if not hasattr(owner, "num_channels"):
        raise _unchangeable(f"the config of {config.model_type} does not state its channels")
    owner.num_channels = channels
    return config


def _adapted(model: PreTrainedModel, config: PreTrainedConfig, own: int, channels: int) -> tuple[PreTrainedModel, str]:
    """The model of another config with the weights of this one, and the name of the tensor that was adapted."""
    try:
        fresh = type(model)(config)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise _unchangeable(f"{type(error).__name__}: {error}") from error
    weights, changed = model.state_dict(), []
    for name, tensor in fresh.state_dict().items():
        if weights[name].shape != tensor.shape:
            weights[name] = _of_channels(name, weights[name], tensor, own, channels)
            changed.append(name)
    fresh.load_state_dict(weights)
    return fresh, ", ".join(changed)


def _of_channels(name: str, weight: Tensor, like: Tensor, own: int, channels: int) -> Tensor:
    try:
        adapted = adapt_input_conv(channels, weight, own)
    except (NotImplementedError, AssertionError) as error:
        raise _unchangeable(f"{name} is not a convolution of images") from error
    if adapted.shape != like.shape:
        raise _unchangeable(f"{name} has the shape {list(weight.shape)}")
    return adapted


def _unchangeable(why: str) -> UserError:
    return UserError(
        f"data.channels: the model cannot be given another number of channels ({why}). Choose another model, for example one of "
        "timm, or leave data.channels out."
    )
