"""A Trainer that only believes that its weights are sharded."""

import pytest
from transformers import Trainer


def pretend_fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Trainer built from here on says that FSDP is on."""
    start = Trainer.create_accelerator_and_postprocess

    def start_sharded(trainer: Trainer) -> None:
        start(trainer)
        trainer.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", start_sharded)
