"""FSDP on the processes of a CPU, which Accelerate leaves out without a word.

`AcceleratorState` of accelerate 1.15 lists the kinds of accelerators that shard, and CPUs are not among them: each process gets
the whole model, and averages gradients as DDP does. FSDP2 of PyTorch itself works there, over gloo.
"""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers import TrainingArguments

from hf_accel.errors import UserError
from hf_accel.models.layout import is_channels_last

SHARDED_ON_CPUS = (
    "FSDP: Accelerate shards weights on accelerators only, so this run has switched it on for its CPU processes"
)

PLAIN_LAYOUT = "model.channels_last has no effect on the weights: FSDP shards tensors in the plain layout alone"


def use_plain_layout(model: nn.Module) -> bool:
    """Store the weights in the layout that FSDP2 shards, in place; with others it raises NotImplementedError.

    Returns:
        Whether any had another one.
    """
    if not is_channels_last(model):
        return False
    model.to(memory_format=torch.contiguous_format)
    return True


def shard_on_cpus(accelerator: Accelerator, args: TrainingArguments) -> bool:
    """Switch FSDP on where it is asked for and the processes train on CPUs.

    Returns:
        Whether it was switched on here; False where Accelerate does it, or where nobody asks for it.
    Raises:
        UserError: the first version of FSDP is asked for, which does not shard on CPUs.
    """
    asked = args.fsdp_plugin_args is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    state = accelerator.state
    if not asked or state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))  # else of the launcher's environment
    if plugin.fsdp_version != 2:
        raise UserError(
            f"FSDP of version {plugin.fsdp_version} is asked for, and on CPUs only version 2 shards. Launch with recipes/"
            "accelerate/fsdp2.yaml, or set training.fsdp_config.version to 2."
        )
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.fsdp_plugin = plugin
    return True
