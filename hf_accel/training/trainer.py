"""The Trainer of a classifier.

It is thin, and changes what upstream gets wrong or leaves out: batches are transformed on the training device, the loss is
exact under gradient accumulation, a run whose loss or weights are no longer finite ends and saves nothing, and a network that
cannot be compiled is trained eagerly. How it evaluates is in `scoring`, how it saves and resumes in `checkpointing`, which
rows it trains on in `feeding`; what is particular to images is in `tasks/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_utils import TrainOutput

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.recipe import Recipe
from hf_accel.config.schedules import Schedule
from hf_accel.data.splits import Splits
from hf_accel.measure.steps import MeasureCallback, Measurement, Stopwatch
from hf_accel.methods import (
    AfterForward,
    BatchLoss,
    BeforeTraining,
    LoggedFigures,
)
from hf_accel.methods.finite import FiniteSteps
from hf_accel.methods.learning_rates import layer_rates, split_groups
from hf_accel.methods.muon import build_muon
from hf_accel.methods.schedules import build_schedule
from hf_accel.methods.timm_optimizers import build_timm_optimizer
from hf_accel.models.layers import layer_numbers
from hf_accel.models.loaded import Loaded
from hf_accel.tasks.texts import TEXTS
from hf_accel.training.arguments import Arguments
from hf_accel.training.checkpointing import LoggedSums
from hf_accel.training.checks import refuse_sharding
from hf_accel.training.evaluation import TrainAccuracyCallback
from hf_accel.training.feeding import count_rows
from hf_accel.training.finite_training import FiniteTrainer
from hf_accel.training.out_of_memory import SmallerBatches
from hf_accel.training.progress import BarCallback
from hf_accel.training.scoring import Batch, Method, Methods
from hf_accel.training.search import begin_again, refuse_loss_kwargs, search
from hf_accel.training.sharding import PLAIN_LAYOUT, SHARDED_ON_CPUS, shard_on_cpus, use_plain_layout
from hf_accel.training.supported import OwnOptimizer

logger = logging.getLogger(__name__)


class ImageTrainer(FiniteTrainer):
    """A Trainer whose datasets make whole batches (`ImageBatches`), which are transformed on the training device.

    Args:
        model: the classifier.
        args: TrainingArguments.
        train_transform: as `eval_transform`, for training; None where the batches of `train_dataset` are transformed already.
        methods: callbacks, contexts of each step in the order in which they are entered, what changes the loss, and what
            chooses the rows; see `hf_accel.methods`.
        class_weights: (C,) float32 weights in the training loss, or None.
        own_optimizer: Muon, or one of timm's; None for the one that `args.optim` names.
        schedule: one of this package's; None for the one that `args.lr_scheduler_type` names.
        method_settings: those of `Arguments.methods`: the loss, and learning rates by layer.
        skips_bad_steps: leave out a step whose loss or gradient norm is not finite, up to a limit, instead of ending the run.
        flops_of_row: batch -> floating-point operations of a forward pass of one of its rows; those of {} are of a row
            of the model's own size. None where nothing is trained.
        example: model -> arguments of a forward pass of one row of that size; None as above.
        callbacks: further callbacks.
        recipe, splits, loaded, arguments, notes: what the run was built from, and what was chosen for the user and why.
        begin_again: makes a model with new weights and its methods, or prepares the model that it is called with; None:
            the model exists once.
        kwargs: what else `ScoringTrainer` takes.
    Raises:
        UserError: FSDP or DeepSpeed, with what needs whole tensors; see `refuse_sharding`.
    """

    model: PreTrainedModel
    # A Trainer that only scores has neither these three, nor `splits` and `flops_of_row`.
    recipe: Recipe
    loaded: Loaded
    arguments: Arguments

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: TrainingArguments,
        train_transform: Callable[[Batch], Batch] | None = None,
        methods: Sequence[Method] = (),
        class_weights: Tensor | None = None,
        own_optimizer: OwnOptimizer | None = None,
        schedule: Schedule | None = None,
        method_settings: dict[str, float] | None = None,
        skips_bad_steps: bool = False,
        flops_of_row: Callable[[Batch], int] | None = None,
        example: Callable[[PreTrainedModel], Batch] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        recipe: Recipe | None = None,
        splits: Splits | None = None,
        loaded: Loaded | None = None,
        arguments: Arguments | None = None,
        notes: Sequence[str] = (),
        begin_again: Callable[..., tuple[Loaded, Methods]] | None = None,
        **kwargs: Any,
    ) -> None:
        # The loss below counts the rows of a whole accumulation window; the model must not be handed that count.
        refuse_loss_kwargs(model)
        self.notes = list(notes)
        super().__init__(model=model, args=args, methods=methods, compute_loss_func=self.loss, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            leaves_out = skips_bad_steps and self.is_deepspeed_enabled
            refuse_sharding(self.model, own_optimizer, methods, leaves_out, args.auto_find_batch_size)
        if self.is_fsdp_enabled and use_plain_layout(self.model):
            self.notes.append(PLAIN_LAYOUT)
        self.train_transform = train_transform
        self.class_weights = None if class_weights is None else class_weights.to(args.device)
        self.own_optimizer, self.schedule = own_optimizer, schedule
        self.method_settings = method_settings or {}
        if flops_of_row is not None:
            self.flops_of_row = flops_of_row
        self.example = example
        if recipe is not None and splits is not None and loaded is not None and arguments is not None:
            self.recipe = recipe
            self.splits, self.loaded, self.arguments = splits, loaded, arguments
        self.begin_again = begin_again
        self.measurement = Measurement(Stopwatch(args.device))
        self.train_accuracy_counts = TrainAccuracyCallback(args.device)
        self.finite_steps = FiniteSteps(self.model, args.device, skips_bad_steps, self.accelerator.scaler is not None)
        self.logged_sums = LoggedSums(self)
        self.smaller_batches: SmallerBatches | None = None
        if args.auto_find_batch_size:
            self.smaller_batches = SmallerBatches(
                self.accelerator, args.train_batch_size, self._changed_in_a_forward_pass
            )
        self.own_state: tuple[Stateful, ...] = (self.train_accuracy_counts, self.finite_steps, self.logged_sums)
        self.own_state += tuple(callback for callback in callbacks if isinstance(callback, Stateful))
        self.own_state += () if self.smaller_batches is None else (self.smaller_batches,)
        self._rows = torch.zeros(0, dtype=torch.int64)  # of the training batch
        self.compile_failure: str | None = None  # why a run that was to be compiled is eager
        self._replace_callbacks(callbacks)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if shard_on_cpus(self.accelerator, self.args):
            self.is_fsdp_enabled = True
            self.notes.append(SHARDED_ON_CPUS)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """As upstream; Accelerate, on which upstream relies, does not know that these processes of a CPU shard.

        Casts are not kept, because sharded weights are gathered into other tensors in each pass.
        """
        if self.is_fsdp_enabled and self.args.device.type == "cpu" and self.args.bf16:
            return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
        return super().autocast_smart_context_manager(cache_enabled)

    def _replace_callbacks(self, callbacks: Sequence[TrainerCallback]) -> None:
        for stock in (ProgressCallback, PrinterCallback):  # our own bar is in progress.py
            self.remove_callback(stock)
        self.bar = BarCallback(self.epoch_loss)
        if hasattr(self, "recipe"):
            words = TEXTS[self.recipe.model.task]
            self.bar.rate, self.bar.main = words.rate, words.scores.headlines[0]
            self.bar.scored_rows = len(self.splits.validation or ()), len(self.splits.test)
        self.measuring = MeasureCallback(self.measurement, self.args.device, self._before_training)
        own = [self.measuring, self.bar, *callbacks, self.train_accuracy_counts, self.finite_steps, self.logged_sums]
        for callback in [*own, *(method for method in self.methods if isinstance(method, TrainerCallback))]:
            self.add_callback(callback)

    def save_own_files(self, checkpoint: Path) -> None:
        self.measuring.save(checkpoint)

    @property
    def flops_per_image(self) -> int:
        """Floating-point operations of a forward pass of one row of the model's own size."""
        return self.flops_of_row({})

    def _before_training(self) -> None:
        for method in self.methods:
            if isinstance(method, BeforeTraining):
                with self.step_methods():
                    method.before_training(self.measurement.computing_features)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As upstream; from the first graph that cannot be compiled on, without compilation."""
        if self.model.training:
            for method in self.batch_losses:
                method.before_forward(self._rows, inputs)
        if self.args.torch_compile:
            try:
                return super().compute_loss(model, dict(inputs), *args, **kwargs)  # upstream takes the labels out
            except torch._dynamo.exc.TorchDynamoException as error:
                self._stop_compiling(error)
        if self.compile_failure is not None and isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod  # the loop holds the compiled one to its end
        return super().compute_loss(model, inputs, *args, **kwargs)

    @property
    def batch_losses(self) -> list[BatchLoss]:
        """The methods that follow each training batch or change its loss."""
        return [method for method in self.methods if isinstance(method, BatchLoss)]

    def _stop_compiling(self, error: Exception) -> None:
        reason = " ".join(str(error).split("\n\n")[0].split())
        self.compile_failure = (
            f"torch_compile: warning: the network cannot be compiled here ({reason}), so this run is eager from step "
            f"{self.state.global_step + 1} on"
        )
        logger.warning(self.compile_failure)
        self.args.torch_compile = False
        self.measurement.compiled = False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        rate, decay = self.args.learning_rate, self.args.weight_decay
        if isinstance(self.own_optimizer, MuonSettings):
            self.optimizer = build_muon(self.model, self.own_optimizer, rate, decay)
            return self.optimizer
        trained = self.model if model is None else model
        if self.own_optimizer is not None:
            decayed = self.get_decay_parameter_names(trained)
            self.optimizer = build_timm_optimizer(trained, self.own_optimizer, rate, decay, decayed)
        optimizer = super().create_optimizer(model)
        self._split_by_layer(optimizer, trained)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.schedule is not None and self.lr_scheduler is None:
            stepped = self.create_optimizer() if optimizer is None else optimizer
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = build_schedule(self.schedule, stepped, warmup, num_training_steps)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _split_by_layer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        decay = self.method_settings.get("layer_decay", 1.0)
        head_rate = self.method_settings.get("head_learning_rate")
        if decay != 1 or head_rate is not None:
            rates = layer_rates(layer_numbers(self.model), self.args.learning_rate, decay, head_rate)
            split_groups(optimizer, dict(model.named_parameters()), rates)

    def loss(self, outputs: ModelOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Mean over all rows of an accumulation window: of the recipe's loss in training, else of the plain one."""
        logits = outputs["logits"]
        if not self.model.training:
            total = self.answers.loss_sum(logits, labels)
        else:
            total = self._training_loss_sum(logits, labels)
            for method in self.methods:
                if isinstance(method, AfterForward):
                    method.after_forward()
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def _training_loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.is_repeated:
            return logits[:0].float().sum()  # zero, with a gradient of zero: all processes exchange gradients
        smoothing = self.args.label_smoothing_factor
        total = self.answers.training_loss_sum(logits, labels, self.class_weights, smoothing, self.method_settings)
        for changed in self.batch_losses:
            total = changed.loss_sum(logits, labels, total)
        self.train_accuracy_counts.count(self.answers.count_right(logits, labels), total, len(labels))
        return total

    def train_accuracy(self) -> float | None:
        """Accuracy over the training batches of the last epoch, as trained on: augmented, dropout on."""
        return self._of_epoch("accuracy")

    def epoch_loss(self) -> float | None:
        """Mean training loss over the rows of the epoch so far; call it on all ranks."""
        return self._of_epoch("loss")

    def _of_epoch(self, figure: str) -> float | None:
        if not self.train_accuracy_counts.seen:
            return None
        correct, loss, seen = self.accelerator.reduce(self.train_accuracy_counts.counts()).tolist()
        return {"accuracy": correct, "loss": loss}[figure] / seen

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As `CheckpointingTrainer`; `auto_find_batch_size` is answered in each step, and not by a run that begins again."""
        asked, self.args.auto_find_batch_size = self.args.auto_find_batch_size, False
        try:
            return super().train(*args, **kwargs)
        finally:
            self.args.auto_find_batch_size = asked

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        train_rows = partial(self._train_rows, model)
        if self.smaller_batches is None:
            loss = train_rows(inputs, num_items_in_batch)
        else:
            step = self.state.global_step + 1
            loss = self.smaller_batches.train(model, inputs, num_items_in_batch, step, train_rows)
        self.finite_steps.add_loss(loss)
        return loss

    def _train_rows(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any) -> Tensor:
        with self.step_methods():
            return super().training_step(model, inputs, num_items_in_batch)

    def _changed_in_a_forward_pass(self) -> list[object]:
        kinds = (BatchLoss, AfterForward, AbstractContextManager)
        return [self.train_accuracy_counts, *(method for method in self.methods if isinstance(method, kinds))]

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        control = self.control
        is_used = control.should_evaluate or control.should_save or control.should_training_stop
        if is_used or control.should_log or self.finite_steps.is_due:
            self._end_after_bad_step()
        if is_used:
            self._end_with_broken_weights()
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        # at the end of an epoch upstream comes here twice, and what is due then is done the second time
        if self.state.global_step != self._last_step_of_epoch and not self.control.should_training_stop:
            self._stop_if_asked(model, trial)

    def _stop_if_asked(self, model: nn.Module, trial: Any) -> None:
        number = None if self.stop_signals is None else self.stop_signals.agreed(self.args.device)
        if number is not None:
            self._end_after_bad_step()
            self._end_with_broken_weights()
            self._save_and_stop(number, model, trial)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Where several processes resume within an epoch, Accelerate's set_epoch does not reach the sampler, which would begin
        # with the rows of the first epoch: https://github.com/huggingface/accelerate/issues/2016
        # a run that had ended, or stopped early: upstream would do one more step
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        self._train_sampler.set_epoch(kwargs["epoch"])
        self._last_step_of_epoch = (kwargs["epoch"] + 1) * kwargs["num_update_steps_per_epoch"]
        super()._run_epoch(*args, **kwargs)
        self._stop_if_asked(kwargs["model"], kwargs["trial"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["train_seconds"] = round(self.measurement.total_seconds(), 4)
            rate = self.measurement.recent_images_per_second()
            if rate is not None:
                logs["images_per_second"] = round(rate * self.args.world_size, 2)
            for method in self.methods:
                if isinstance(method, LoggedFigures):
                    logs |= method.figures()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 3 * self.flops_of_row(inputs) * count_rows(inputs)  # a backward pass costs two forward passes

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream. Every trial begins with new weights: of `model_init`, or else of the recipe.

        Afterwards the arguments are those of before, and the model has new weights: set the best hyperparameters, as in
        `trainer.args.learning_rate = best.hyperparameters["learning_rate"]`, and train.

        Raises:
            UserError: the Trainer was built with a model that exists once, or there are no validation rows to select by.
        """
        return search(self, partial(super().hyperparameter_search, *args, **kwargs))

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As upstream; see `training.search`."""
        return begin_again(self, partial(super().call_model_init, trial))
