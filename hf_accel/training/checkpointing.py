"""The part of the Trainer that saves and loads: a checkpoint is loaded whole, with the state of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.stateful import Stateful
from transformers import PreTrainedModel

from hf_accel.methods import EvaluatedWeights, KeptLater
from hf_accel.models.given import is_peft
from hf_accel.models.lora import has_adapters, load_adapters, merged_state, save_adapters
from hf_accel.models.plain import PlainClassifier
from hf_accel.training.scoring import ScoringTrainer


class CheckpointingTrainer(ScoringTrainer):
    """A Trainer whose checkpoints hold everything that a run remembers."""

    own_state: Sequence[Stateful] = ()  # what remembers something, the methods aside

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As upstream; of a model with adapters, the plain model that they give, and next to it what learns."""
        if not has_adapters(self.model):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = self.args.output_dir if output_dir is None else output_dir
            assert folder is not None  # the recipe's, or the caller's
            super()._save(folder, merged_state(self.model))
            save_adapters(self.model, folder)

    def _save_rng_state(self, output_dir: str) -> None:
        """The state of the methods goes where that of the random numbers goes: a file of each rank in the checkpoint."""
        super()._save_rng_state(output_dir)
        state = {name: method.state_dict() for name, method in self._stateful_methods().items()}
        torch.save(state, self._method_file(output_dir))

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """As upstream; a resumed run does not score the checkpoint again as its start (`eval_on_start`)."""
        if skip_scheduler and self.state.global_step > 0:
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_method_states(checkpoint, self._stateful_methods())

    def _load_method_states(self, checkpoint: str, methods: dict[str, Stateful]) -> None:
        file = self._method_file(checkpoint)
        if not file.is_file():  # a checkpoint without a training state
            return
        # several processes on a CPU have devices cpu:0, cpu:1..., which torch.load does not know
        device = "cpu" if self.args.device.type == "cpu" else self.args.device
        state = torch.load(file, map_location=device, weights_only=True)
        for name, method in methods.items():
            if name in state:
                method.load_state_dict(state[name])

    def _stateful_methods(self) -> dict[str, Stateful]:
        found = (*self.own_state, *self.methods)
        return {type(method).__name__: method for method in found if isinstance(method, Stateful)}

    def _method_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"method_state_{self.args.process_index}.pth"

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Upstream loads Hub-format keys into other module names with strict=False and drops the encoder of ViT, Swin,
        # DINOv2... with a log line: https://github.com/huggingface/transformers/issues/48805
        model = self.model if model is None else model
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or is_peft(model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_weights(model, resume_from_checkpoint)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As upstream, which keeps the first of equal figures; here the one with the lowest loss: few rows tie often.

        Weights that may not be kept are never the best ones.
        """
        if not all(method.may_be_kept() for method in self.methods if isinstance(method, KeptLater)):
            return False
        is_best = super()._determine_best_metric(metrics, trial)
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        if is_best or self.state.best_global_step is None or metrics.get(name) != self.state.best_metric:
            return is_best
        best_step = self.state.best_global_step
        losses = [
            entry["eval_loss"]
            for entry in self.state.log_history
            if entry["step"] == best_step and "eval_loss" in entry
        ]
        if metrics["eval_loss"] >= min(losses, default=float("inf")):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        assert best is not None, "upstream asks only where there is a best checkpoint"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or is_peft(self.model):
            super()._load_best_model()
        else:
            load_weights(self.model, best)
        methods = self._stateful_methods()
        averages = [name for name, method in methods.items() if isinstance(method, EvaluatedWeights)]
        self._load_method_states(best, {name: methods[name] for name in averages})


def load_weights(model: PreTrainedModel, folder: str | Path) -> None:
    """Load a saved folder into a model of the same class, every tensor or an error."""
    if has_adapters(model):
        load_adapters(model, folder)
        return
    if isinstance(model, PlainClassifier):
        model.load_folder(folder)
        return
    saved = type(model).from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    model.load_state_dict(saved.state_dict(), strict=True)
