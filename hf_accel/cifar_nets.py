"""`import hf_accel.cifar_nets` registers this package's networks (`cifar_*`) with timm; model cards tell readers to do it."""

import hf_accel.models.airbench
import hf_accel.models.cct
import hf_accel.models.cifar_resnet  # noqa: F401
