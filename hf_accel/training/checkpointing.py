"""The part of the Trainer that saves and loads: a checkpoint is loaded whole, with the state of the methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.stateful import Stateful
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from hf_accel.errors import RunError, Stopped
from hf_accel.methods import DiffersBetweenProcesses, EvaluatedWeights, KeptLater
from hf_accel.models.given import is_peft
from hf_accel.models.lora import has_adapters, load_adapters, merged_state, save_adapters
from hf_accel.models.plain import PlainClassifier
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import checkpoint_damage, processes_of, refuse_damaged_checkpoint
from hf_accel.runs.folder import RunFolder
from hf_accel.training.preemption import StopSignals
from hf_accel.training.scoring import ScoringTrainer


class CheckpointingTrainer(ScoringTrainer):
    """A Trainer whose checkpoints hold everything that a run remembers, and count only when they are whole."""

    own_state: Sequence[Stateful] = ()  # what remembers something, the methods aside
    saved_step: int | None = None  # of the last checkpoint of this process
    stop_signals: StopSignals | None = None  # of a command

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As upstream; a checkpoint that is not whole is refused, and True takes the newest one that is.

        Raises:
            UserError: the checkpoint is damaged, or all of them are.
        """
        self.saved_step = None
        if resume_from_checkpoint is True:
            newest = RunFolder(str(self.args.output_dir)).checkpoints.newest_whole()
            resume_from_checkpoint = True if newest is None else str(newest)  # upstream says that there is none
        elif resume_from_checkpoint:
            refuse_damaged_checkpoint(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def save_own_files(self, checkpoint: Path) -> None:
        """What each process adds to a checkpoint."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As upstream, and then the manifest; older checkpoints are deleted when this one is whole.

        Upstream's rotation goes by the dates of the folders, and comes before the checkpoint is on the disk.
        """
        if trial is not None or self.hp_search_backend is not None:  # a trial is not resumed
            super()._save_checkpoint(model, trial)
            return
        run = RunFolder(str(self.args.output_dir))
        folder = run.path / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            manifest.begin(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.save_own_files(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._commit(run, folder)
        self.saved_step = self.state.global_step

    def _save_and_stop(self, number: int, model: Any, trial: Any) -> None:
        """Save this step, if it is not saved yet, and end the run; not where it ends by itself."""
        if self.saved_step != self.state.global_step:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        if not self.control.should_training_stop:
            raise Stopped(f"step {self.state.global_step} of {self.state.max_steps}", number)

    def _commit(self, run: RunFolder, folder: Path) -> None:
        batch = self.get_total_train_batch_size(self.args)
        facts = {"step": self.state.global_step, "run": run.identity, "processes": self.args.world_size, "batch": batch}
        manifest.commit(folder, **facts)
        found = checkpoint_damage(folder, manifest.SIZES)
        if found is not None:
            raise RunError(f"{found}. The disk did not keep what was written to it, and the older checkpoints stay.")
        limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
        if limit is not None and limit > 0:
            run.checkpoints.prune(limit, folder, None if best is None else Path(best))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As upstream; of a model with adapters, the plain model that they give, and next to it what learns."""
        with self._saving_where_asked():
            if not has_adapters(self.model):
                super()._save(output_dir, state_dict)
            elif self.args.should_save:
                folder = self.args.output_dir if output_dir is None else output_dir
                assert folder is not None  # the recipe's, or the caller's
                super()._save(folder, merged_state(self.model))
                save_adapters(self.model, folder)

    @contextmanager
    def _saving_where_asked(self) -> Iterator[None]:
        """Let each machine save the model where `save_on_each_node` asks for it; upstream's model does on the first alone."""
        if not self.args.save_on_each_node:
            yield
            return
        self.model.should_save_on_this_rank = bool  # type: ignore[method-assign, assignment]  # of what it is asked with
        try:
            yield
        finally:
            del self.model.should_save_on_this_rank

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
        as_many = processes_of(Path(checkpoint)) in (None, self.args.world_size)
        own, all_files = self._method_file(checkpoint), sorted(Path(checkpoint).glob("method_state_*.pth"))
        # several processes on a CPU have devices cpu:0, cpu:1..., which torch.load does not know
        device = "cpu" if self.args.device.type == "cpu" else self.args.device
        files = [file for file in ([own] if as_many else all_files) if file.is_file()]  # none: without a training state
        states = [torch.load(file, map_location=device, weights_only=True) for file in files]
        for name, method in methods.items():
            found = [state[name] for state in states if name in state]
            if found and isinstance(method, DiffersBetweenProcesses) and not as_many:
                method.load_state_dict(method.joined(found, self.args.process_index))
            elif found:
                method.load_state_dict(found[0])

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
        found = checkpoint_damage(Path(best))
        if found is not None:
            raise RunError(
                f"the best checkpoint is damaged ({found}), so there is no best model. Restore the file and repeat the command, "
                "or add --overwrite to start from scratch."
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or is_peft(self.model):
            super()._load_best_model()
        else:
            load_weights(self.model, best)
        methods = self._stateful_methods()
        averages = [name for name, method in methods.items() if isinstance(method, EvaluatedWeights)]
        self._load_method_states(best, {name: methods[name] for name in averages})


class LoggedSums(TrainerCallback):
    """The loss since the last line of the log, which upstream forgets: a run may be saved between two lines.

    Args:
        trainer: has the sums.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._loaded: dict[str, Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._loaded is not None:
            self.trainer._tr_loss.copy_(self._loaded["loss"])
            self.trainer._globalstep_last_logged = self._loaded["logged_step"]
            self._loaded = None

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.trainer._tr_loss, "logged_step": self.trainer._globalstep_last_logged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = state

    def joined(self, states: Sequence[dict[str, Any]], process: int) -> dict[str, Any]:
        loss = torch.stack([state["loss"] for state in states]).mean()  # what is logged is the mean over the processes
        return states[0] | {"loss": loss}


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
