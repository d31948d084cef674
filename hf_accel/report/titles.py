"""What a run is called where people read of it: by its model and its data, because recipes share names."""

from __future__ import annotations

import re
from pathlib import PurePath

from hf_accel.formatting import format_count

# As the papers write them; a name on the Hub is in lower case.
FAMILIES = ("AlexNet", "BEiT", "ConvNeXt", "ConvNeXtV2", "DeiT", "DenseNet", "DINOv2", "DINOv3", "EfficientNet",
            "EfficientNetV2", "MobileNetV2", "MobileNetV3", "MobileViT", "RegNet", "ResNet", "ResNetV2", "ResNeXt", "SigLIP",
            "Swin", "SwinV2", "VGG", "ViT")  # fmt: skip
_FAMILY_OF = {family.lower(): family for family in FAMILIES}
_LONGEST_FIRST = "|".join(sorted(map(re.escape, _FAMILY_OF), key=len, reverse=True))


def run_title(model: str | None, data: str | None, num_labels: int) -> str:
    """Model and data in one line.

    >>> run_title("timm/efficientnet_b0.ra_in1k", "./photos", 10)
    'EfficientNet-B0 on photos, 10 classes'
    """
    on = f" on {last_part(data)}" if data else ""
    classes = f", {format_count(num_labels)} classes" if num_labels else ""
    return f"{model_title(model) if model else 'A model'}{on}{classes}"


def model_title(name: str) -> str:
    """The last part of a model's id or folder, with the family of the network as its paper writes it.

    >>> [model_title(name) for name in ("google/vit-base-patch16-224", "microsoft/resnet-50", "./my_net")]
    ['ViT-Base-patch16-224', 'ResNet-50', 'my_net']
    """
    stem = last_part(name)
    family = re.match(rf"(?:tf_)?({_LONGEST_FIRST})(?=[-_.\d]|$)", stem, re.IGNORECASE)
    if family is None:
        return stem
    # timm's names end in .WEIGHTS, which say how the network was pretrained
    number, *words = re.split(r"[-_]", stem[family.end() :].partition(".")[0])
    if words:
        words[0] = words[0][:1].upper() + words[0][1:]
    return "-".join([_FAMILY_OF[family[1].lower()] + number, *words])


def last_part(name: str) -> str:
    """`photos` of `/home/jane/photos` and of `jane/photos`."""
    return PurePath(name.rstrip("/\\")).name or name
