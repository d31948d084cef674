"""A network of the caller's own, which returns logits, with the interface of a transformers classifier.

Only the code that built such a network can build it again, so its saved folder has no architecture: `model.safetensors`
has the network's own tensor names (`safetensors.torch.load_model(network, "FOLDER/model.safetensors")` reads it), and
`config.json` has the names of the classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

PLAIN_TYPE = "hf_accel_plain"
WEIGHTS = "model.safetensors"


class PlainConfig(PreTrainedConfig):
    """The names of the classes, and nothing that could build the network."""

    model_type = PLAIN_TYPE


class PlainClassifier(PreTrainedModel):
    """A classifier around a network.

    Args:
        config: holds the names of the classes.
        network: pixel_values (B, C, H, W) float32 -> logits (B, num_labels), as a tensor, or as `logits` of an output. It
            stays the caller's object, and is trained in place.
    """

    config_class = PlainConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PlainConfig, network: nn.Module) -> None:
        super().__init__(config)
        self.network = network

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        output = self.network(pixel_values)
        if not isinstance(output, Tensor):
            output = output["logits"] if isinstance(output, dict) else output.logits
        return ImageClassifierOutput(logits=output)

    def save_pretrained(  # type: ignore[override]  # nothing of the rest applies
        self, save_directory: Any, is_main_process: bool = True, **_: Any
    ) -> None:
        """Write the network's tensors and the names of the classes."""
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self.network).__name__]
        self.config.save_pretrained(folder)
        save_model(self.network, str(folder / WEIGHTS), metadata={"format": "pt"})

    def load_folder(self, folder: str | Path) -> None:
        """Load what `save_pretrained` wrote, every tensor or an error."""
        load_model(self.network, str(Path(folder) / WEIGHTS), strict=True)


def has_batch_dependent_statistics(model: nn.Module) -> bool:
    """Whether batch-norm layers of the model learn nothing but would still move their statistics."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return any(
        not any(p.requires_grad for p in layer.parameters()) and layer.running_mean is not None for layer in layers
    )


def master_weights(model: nn.Module) -> list[str]:
    """Make half-precision weights float32, in place; returns a note where there were any."""
    half = {p.dtype for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if not half:
        return []
    model.float()
    return [f"weights of {', '.join(sorted(str(d).removeprefix('torch.') for d in half))} are trained in float32"]
