"""A Trainer whose weights are sharded on CPUs, and one that only believes it."""

import pytest
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer


def pretend_fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Trainer built from here on says that FSDP is on."""
    start = Trainer.create_accelerator_and_postprocess

    def start_sharded(trainer: Trainer) -> None:
        start(trainer)
        trainer.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", start_sharded)


def shard_on_cpus() -> None:
    """Let Accelerate apply FSDP, which it does on accelerators only, to the processes of a CPU."""
    start = Trainer.create_accelerator_and_postprocess

    def start_sharded(trainer: Trainer) -> None:
        start(trainer)
        state = trainer.accelerator.state
        assert state.distributed_type == DistributedType.MULTI_CPU
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()  # of the launcher's environment
        trainer.is_fsdp_enabled = True

    Trainer.create_accelerator_and_postprocess = start_sharded
