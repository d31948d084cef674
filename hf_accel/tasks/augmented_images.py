"""Training images as augmentation changes them, through the batches and the transform that training uses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hf_accel.data.multi_label_images import JOINT, NONE
from hf_accel.inputs.sampling import encode
from hf_accel.transforms.contact_sheet import AugmentedImage

if TYPE_CHECKING:
    from hf_accel.data.splits import ImageSplit
    from hf_accel.inputs.preprocessing import Preprocessing
    from hf_accel.tasks.image_inputs import ImageInputs


def augmented_images(inputs: ImageInputs, split: ImageSplit, rows: np.ndarray, num_epochs: int) -> list[AugmentedImage]:
    """These rows of the training split, and what the first epochs make of each.

    Nothing but these rows, and the images that are mixed into them, is decoded.

    Raises:
        UserError: an image is unreadable.
    """
    uncached = replace(inputs.recipe.data, cache="none")
    inputs = replace(inputs, recipe=replace(inputs.recipe, data=uncached))
    batches, transform = inputs.train_batches(split), inputs.train_transform()
    of_epochs = []
    for epoch in range(num_epochs):
        batch = batches.__getitems__(encode(epoch, rows, len(split)).tolist())
        of_epochs.append(batch if transform is None else transform(batch))
    evaluation = inputs.eval_transform()(inputs.scored_batches(split).__getitems__(rows.tolist()))
    originals = pixels_of(evaluation["pixel_values"], inputs.preprocessing)
    samples = [pixels_of(batch["pixel_values"], inputs.preprocessing) for batch in of_epochs]
    labels = [shares_of(batch["labels"], split.label_names) for batch in of_epochs]
    return [
        AugmentedImage(
            image=originals[number],
            label=split.label_text(row),
            samples=[images[number] for images in samples],
            sample_labels=[texts[number] for texts in labels],
        )
        for number, row in enumerate(rows)
    ]


def pixels_of(pixel_values: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Normalised images (B, C, H, W) as (B, H, W, 3) uint8 RGB."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    levels = (pixel_values.permute(0, 2, 3, 1).cpu() * std + mean) * 255
    levels = levels.flip(3) if preprocessing.bgr else levels
    shown = levels[..., :3] if levels.shape[3] >= 3 else levels[..., :1].expand(*levels.shape[:3], 3)
    return shown.round().clamp(0, 255).to(torch.uint8).numpy()


def shares_of(labels: Tensor, label_names: list[str]) -> list[str]:
    """Labels (B,), soft ones (B, C), or several (B, C) of 0 and 1, in words: `cat 0.71 + dog 0.29`."""
    if labels.ndim == 1:
        labels = functional.one_hot(labels, len(label_names)).float()
    texts = []
    for row in labels:
        shares, order = row.sort(descending=True, stable=True)
        named = [
            (label_names[number], share)
            for number, share in zip(order.tolist(), shares.tolist(), strict=True)
            if share >= 0.005
        ]
        texts.append(JOINT.join(name if share > 0.995 else f"{name} {share:.2f}" for name, share in named) or NONE)
    return texts
