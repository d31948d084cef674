"""`import hf_accel.cifar_nets` registers what only this package has; model cards tell readers to do it.

These are its networks (`cifar_*`), with timm, and the classifier on an image encoder, with transformers.
"""

import hf_accel.models.airbench
import hf_accel.models.cct
import hf_accel.models.cifar_resnet
import hf_accel.models.encoder  # noqa: F401
