"""The `config.json` of an exported folder, by which transformers.js and optimum know what the network is.

The network itself is in the ONNX file, so of the configuration both read no more than the type, which chooses a class for
"an image in, logits out", and the names of the classes. transformers.js refuses a type that is not in its table of image
classifiers, among them `timm_wrapper`; such a model is then called a `resnet`.
"""

from __future__ import annotations

import json
from pathlib import Path

from hf_accel.models.load import LoadedModel

# Source: MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES of @huggingface/transformers 4.3.2
KNOWN_TYPES = ("beit", "convnext", "convnextv2", "deit", "dinov2", "dinov2_with_registers", "efficientnet", "hiera", "ijepa",
               "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "pvt", "resnet", "segformer", "swin", "vit",
               "vit_msn")  # fmt: skip
STAND_IN = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}


def write_model_configuration(loaded: LoadedModel, folder: Path) -> None:
    """Write `config.json`: the model's own where both libraries know its type, else that of the stand-in."""
    config = loaded.model.config
    if config.model_type in KNOWN_TYPES:
        config.save_pretrained(folder)
        return
    values = {
        **STAND_IN,
        "exported_from": getattr(config, "architecture", None) or config.model_type,
        "id2label": dict(enumerate(loaded.label_names)),
        "label2id": {name: number for number, name in enumerate(loaded.label_names)},
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
