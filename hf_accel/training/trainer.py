"""The Trainer of a classifier.

It is thin, and changes what upstream gets wrong or leaves out: batches are transformed on the training device, the loss is
exact under gradient accumulation, evaluation keeps five classes per row unless logits are needed, no row goes unscored, a
checkpoint is loaded whole, a resumed run continues the state of its methods, a run whose loss or weights are no longer
finite ends and saves nothing, and a network that cannot be compiled is trained eagerly. What is particular to images is in
`tasks/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput

from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.recipe import Recipe
from hf_accel.config.schedules import Schedule
from hf_accel.data.splits import Splits
from hf_accel.errors import RunError, UserError
from hf_accel.inputs.batches import ImageBatches, TransformedBatches
from hf_accel.inputs.features import FeatureBatches
from hf_accel.inputs.prepared import PreparedBatches, ScoredBatches
from hf_accel.inputs.sampling import EpochSampler
from hf_accel.measure.steps import MeasureCallback, Measurement, Stopwatch
from hf_accel.methods import (
    AfterForward,
    BatchLoss,
    BeforeTraining,
    ChoosesRows,
    EvaluatedWeights,
    KeptLater,
    LoggedFigures,
)
from hf_accel.methods.finite import BadStep, FiniteSteps, broken_tensor
from hf_accel.methods.learning_rates import layer_rates, split_groups
from hf_accel.methods.losses import cross_entropy_sum, training_loss_sum
from hf_accel.methods.muon import build_muon
from hf_accel.methods.schedules import build_schedule
from hf_accel.methods.timm_optimizers import build_timm_optimizer
from hf_accel.models.given import base_of, is_peft
from hf_accel.models.head import known_labels
from hf_accel.models.layers import layer_numbers
from hf_accel.models.load import LoadedModel
from hf_accel.models.lora import has_adapters, load_adapters, merged_state, save_adapters
from hf_accel.models.plain import PlainClassifier
from hf_accel.training.arguments import Arguments
from hf_accel.training.checks import refuse_sharding
from hf_accel.training.evaluation import EvaluationMetrics, TrainAccuracyCallback, kept_of_rows
from hf_accel.training.failure import failed_at
from hf_accel.training.progress import BarCallback
from hf_accel.training.supported import OwnOptimizer

logger = logging.getLogger(__name__)

Batch = dict[str, Any]
Method = TrainerCallback | AbstractContextManager | BatchLoss | ChoosesRows
Methods = list[Method]


class ImageTrainer(Trainer):
    """A Trainer whose datasets make whole batches (`ImageBatches`), which are transformed on the training device.

    Args:
        model: the classifier.
        args: TrainingArguments.
        eval_transform: batch on the device, completed by its dataset -> arguments of the model, `labels` included.
        train_transform: the same for training; None where the batches of `train_dataset` are transformed already.
        test_dataset: the batches that are scored at the end.
        read_rows: rows that a caller brings later -> the batches that an evaluation of them reads; None: it takes none.
        scoring_model: model -> what an evaluation calls in its place; None: the model itself.
        methods: callbacks, contexts of each step in the order in which they are entered, what changes the loss, and what
            chooses the rows; see `hf_accel.methods`.
        class_weights: (C,) float32 weights in the training loss, or None.
        own_optimizer: Muon, or one of timm's; None for the one that `args.optim` names.
        schedule: one of this package's; None for the one that `args.lr_scheduler_type` names.
        method_settings: those of `Arguments.methods`: the loss, and learning rates by layer.
        skips_bad_steps: leave out a step whose loss or gradient norm is not finite, up to a limit, instead of ending the run.
        flops_of_row: batch -> floating-point operations of a forward pass of one of its rows; those of {} are of a row
            of the model's own size. None where nothing is trained.
        callbacks: further callbacks.
        recipe, splits, loaded, arguments, notes: what the run was built from, and what was chosen for the user and why.
        begin_again: makes a model with new weights and its methods, or prepares the model that it is called with; None:
            the model exists once.
        kwargs: what else Trainer takes.
    Raises:
        UserError: FSDP or DeepSpeed, with what needs whole tensors; see `refuse_sharding`.
    """

    model: PreTrainedModel
    train_dataset: ImageBatches | TransformedBatches | PreparedBatches | FeatureBatches
    # A Trainer that only scores has none of these five.
    recipe: Recipe
    splits: Splits
    loaded: LoadedModel
    arguments: Arguments
    flops_of_row: Callable[[Batch], int]

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: TrainingArguments,
        eval_transform: Callable[[Batch], Batch],
        train_transform: Callable[[Batch], Batch] | None = None,
        test_dataset: ScoredBatches,
        read_rows: Callable[[Any], ScoredBatches] | None = None,
        scoring_model: Callable[[nn.Module], Callable[..., ModelOutput]] | None = None,
        methods: Sequence[Method] = (),
        class_weights: Tensor | None = None,
        own_optimizer: OwnOptimizer | None = None,
        schedule: Schedule | None = None,
        method_settings: dict[str, float] | None = None,
        skips_bad_steps: bool = False,
        flops_of_row: Callable[[Batch], int] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        recipe: Recipe | None = None,
        splits: Splits | None = None,
        loaded: LoadedModel | None = None,
        arguments: Arguments | None = None,
        notes: Sequence[str] = (),
        begin_again: Callable[..., tuple[LoadedModel, Methods]] | None = None,
        **kwargs: Any,
    ) -> None:
        # The loss below counts the rows of a whole accumulation window; the model must not be handed that count.
        refuse_loss_kwargs(model)
        super().__init__(model=model, args=args, compute_loss_func=self.loss, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            refuse_sharding(self.model, own_optimizer, methods, skips_bad_steps and self.is_deepspeed_enabled)
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.test_dataset = test_dataset
        self.read_rows = read_rows
        self.scoring_model = scoring_model
        self.methods = list(methods)
        self.class_weights = None if class_weights is None else class_weights.to(args.device)
        self.own_optimizer, self.schedule = own_optimizer, schedule
        self.method_settings = method_settings or {}
        if flops_of_row is not None:
            self.flops_of_row = flops_of_row
        if recipe is not None and splits is not None and loaded is not None and arguments is not None:
            self.recipe = recipe
            self.splits, self.loaded, self.arguments = splits, loaded, arguments
        self.notes = list(notes)
        self.begin_again = begin_again
        self.measurement = Measurement(Stopwatch(args.device))
        self.train_accuracy_counts = TrainAccuracyCallback(args.device)
        self.finite_steps = FiniteSteps(self.model, args.device, skips_bad_steps, self.accelerator.scaler is not None)
        self._predicts_logits = self._keeps_probabilities = False
        self._rows = torch.zeros(0, dtype=torch.int64)  # of the training batch
        self.compile_failure: str | None = None  # why a run that was to be compiled is eager
        self._scored_dataset: ScoredBatches = test_dataset
        self._replace_callbacks(callbacks)

    def _replace_callbacks(self, callbacks: Sequence[TrainerCallback]) -> None:
        for stock in (ProgressCallback, PrinterCallback):  # our own bar is in progress.py
            self.remove_callback(stock)
        self.bar = BarCallback(self.epoch_loss)
        own = [MeasureCallback(self.measurement, self.args.device, self._before_training), self.bar, *callbacks]
        own += [self.train_accuracy_counts, self.finite_steps]
        for callback in [*own, *(method for method in self.methods if isinstance(method, TrainerCallback))]:
            self.add_callback(callback)

    @property
    def flops_per_image(self) -> int:
        """Floating-point operations of a forward pass of one row of the model's own size."""
        return self.flops_of_row({})

    @contextmanager
    def step_methods(self) -> Iterator[None]:
        """The methods that are contexts of a step, entered in their order."""
        with ExitStack() as stack:
            for method in self.methods:
                if isinstance(method, AbstractContextManager):
                    stack.enter_context(method)
            yield

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
        """Mean over all rows of an accumulation window: of the recipe's loss in training, else of the cross-entropy."""
        logits = outputs["logits"]
        if not self.model.training:
            total = cross_entropy_sum(logits, labels)
        else:
            smoothing = self.args.label_smoothing_factor
            total = training_loss_sum(logits, labels, self.class_weights, smoothing, self.method_settings)
            for changed in self.batch_losses:
                total = changed.loss_sum(logits, labels, total)
            self.train_accuracy_counts.count(logits, labels, total)
            for method in self.methods:
                if isinstance(method, AfterForward):
                    method.after_forward()
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

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

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        with self.measurement.waiting():
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._logged_loss_before = self._tr_loss.clone()
        for batch in batches:
            self.measurement.count_images(len(batch["labels"]), self.flops_of_row(batch))
        return batches, num_items

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | int | None:
        # upstream counts the elements of `labels`; soft labels of the loader are (B, C)
        rows = [{"labels": x["labels"][..., 0] if x["labels"].ndim == 2 else x["labels"]} for x in batch_samples]
        return super()._get_num_items_in_batch(rows, device)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with self.step_methods():
            loss = super().training_step(*args, **kwargs)
        self.finite_steps.add_loss(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """As upstream, which calls it once per optimizer step, before the update."""
        norm = super()._get_grad_norm(model, grad_norm)
        step = self.state.global_step + 1
        self.finite_steps.end_step(step, self._get_learning_rate(), norm)
        if self.finite_steps.every == 1:
            self._end_after_bad_step()
            if self.finite_steps.was_left_out(step):
                self._leave_step_out(model, step)
        return norm

    def _end_after_bad_step(self) -> None:
        bad = self.finite_steps.read(self.accelerator.gather)
        if bad is not None:
            self._fail(bad)

    def _fail(self, bad: BadStep) -> NoReturn:
        message = failed_at(bad, self.args, self.state.max_steps)
        self.bar.close()
        raise RunError(message)

    def _leave_step_out(self, model: nn.Module, step: int) -> None:
        logger.warning("step %d: left out, because its loss or gradient norm is not finite", step)
        model.zero_grad(set_to_none=True)  # an optimizer does nothing to a parameter without a gradient
        self.finite_steps.restore_buffers()
        self._tr_loss.copy_(self._logged_loss_before)
        self._globalstep_last_logged += 1  # the loss that is logged is the mean over the steps that were made

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        control = self.control
        is_used = control.should_evaluate or control.should_save or control.should_training_stop
        if is_used or control.should_log or self.finite_steps.is_due:
            self._end_after_bad_step()
        if is_used:
            self._end_with_broken_weights()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _end_with_broken_weights(self) -> None:
        """An update can overflow although its loss and its gradients are finite."""
        found = [name for name in gather_object([broken_tensor(self.model)]) if name is not None]
        if found:
            bad = BadStep(
                self.state.global_step, self._get_learning_rate(), f"{found[0]} holds values that are not finite"
            )
            self._fail(bad)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        inputs = super()._prepare_inputs(inputs)
        if not self.model.training:
            completed = self._scored_dataset.complete(inputs)
            is_done = isinstance(self._scored_dataset, PreparedBatches | FeatureBatches)
            return completed if is_done else self.eval_transform(completed)
        self._rows = inputs["rows"]
        if self.train_transform is None:
            return self.train_dataset.complete(inputs)
        with self.measurement.transforming():
            return self.train_transform(self.train_dataset.complete(inputs))

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        # upstream drops the last, shorter batch of an evaluation too, and its rows silently go unscored
        asked = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = asked and kwargs.get("is_training", False)
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = asked

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        assert isinstance(dataloader.dataset, ScoredBatches), "an evaluation reads whole batches"
        self._scored_dataset = dataloader.dataset
        asked = self.compute_metrics
        if asked is not None and not isinstance(asked, EvaluationMetrics):  # set by the caller in place of ours
            self.compute_metrics = EvaluationMetrics(len(known_labels(self.model.config)), own=asked, standard=False)
        try:
            with self._evaluated_weights():
                return super().evaluation_loop(dataloader, *args, **kwargs)
        finally:
            self.compute_metrics = asked

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        with ExitStack() as stack:
            for method in self.methods:
                if isinstance(method, EvaluatedWeights):
                    stack.enter_context(method.in_place())
            yield

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As upstream; `eval_dataset` may also be rows in any form that `build_trainer` takes.

        Raises:
            UserError: rows that cannot be understood, or without labels.
        """
        if eval_dataset is not None and not isinstance(eval_dataset, dict | str):
            eval_dataset = self.scored_batches(eval_dataset)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """The logits of every row, in the order of the rows.

        Args:
            test_dataset: `test_dataset` or `eval_dataset` of this Trainer, or rows in any form that `build_trainer` takes;
                their labels may be missing.
            args, kwargs: as upstream.
        Returns:
            predictions (N, C) float32, the logits; label_ids (N,) int64, and None for rows without labels; metrics.
        Raises:
            UserError: rows that cannot be understood.
        """
        self._predicts_logits = True
        try:
            output = super().predict(self.scored_batches(test_dataset), *args, **kwargs)
        finally:
            self._predicts_logits = False
        logits, rows = output.predictions  # type: ignore[misc]  # upstream says a tuple of one
        order = np.argsort(rows)
        labels = None if output.label_ids is None else np.asarray(output.label_ids)[order]
        return PredictionOutput(logits[order], labels, output.metrics)

    def score(
        self, dataset: ScoredBatches, metric_key_prefix: str = "test", probabilities: bool = False
    ) -> PredictionOutput:
        """As `predict`, but of each row `kept_of_rows` and the row's number are kept: logits of many classes are large.

        Args:
            probabilities: keep those of all classes, too, (N, C) before the numbers of the rows.
        """
        self._keeps_probabilities = probabilities
        try:
            output = super().predict(dataset, metric_key_prefix=metric_key_prefix)
        finally:
            self._keeps_probabilities = False
        *first, rows = output.predictions
        if len(first) > 1:
            return output
        logits = torch.from_numpy(first[0])  # which the metrics of the caller needed
        figures = kept_of_rows(logits, torch.from_numpy(np.asarray(output.label_ids)))
        whole = (logits.softmax(-1),) if probabilities else ()
        kept: Any = (*(figure.numpy() for figure in (*figures, *whole)), rows)
        return PredictionOutput(kept, output.label_ids, output.metrics)

    def scored_batches(self, rows: Any) -> ScoredBatches:
        """The dataset that an evaluation of these rows reads."""
        if isinstance(rows, ScoredBatches):
            return rows
        if self.read_rows is None:
            raise UserError("This Trainer only scores the rows that it was built with. Expected its test_dataset.")
        return self.read_rows(rows)

    @property
    def _keeps_logits(self) -> bool:
        metrics = self.compute_metrics
        return self._predicts_logits or (isinstance(metrics, EvaluationMetrics) and metrics.needs_logits)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        chosen = next((method for method in self.methods if isinstance(method, ChoosesRows)), None)
        choice = () if chosen is None else (len(chosen), chosen.rows)
        self._train_sampler = EpochSampler(len(dataset), seed, *choice)
        return self._train_sampler

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Where several processes resume within an epoch, Accelerate's set_epoch does not reach the sampler, which would begin
        # with the rows of the first epoch: https://github.com/huggingface/accelerate/issues/2016
        self._train_sampler.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def num_examples(self, dataloader: DataLoader) -> int:
        """As upstream, which takes the rows of the data set for those of an epoch."""
        batches = dataloader.batch_sampler
        if isinstance(batches, BatchSamplerShard):
            batches = batches.batch_sampler
        if isinstance(batches, BatchSampler) and isinstance(batches.sampler, EpochSampler):
            return len(batches.sampler)
        return super().num_examples(dataloader)

    def prediction_step(  # type: ignore[override]  # upstream returns tuples of logits, and its type does not say so
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, tuple[Tensor, ...] | None, Tensor | None]:
        """Keep of each row the logits, or else what `kept_of_rows` says, and the row's number."""
        rows = inputs["rows"].to(self.args.device)
        scored: Any = model if self.scoring_model is None else self.scoring_model(model)
        with self.step_methods():
            loss, logits, labels = super().prediction_step(scored, inputs, prediction_loss_only, ignore_keys)
        if logits is None:
            return loss, None, labels
        if isinstance(logits, tuple):  # outputs next to the logits, as DeiT with teacher has
            logits = logits[0]
        if self._keeps_logits:
            return loss, (logits.float(), rows), labels
        if labels is None:
            return loss, None, None
        whole = (logits.float().softmax(-1),) if self._keeps_probabilities else ()
        return loss, (*kept_of_rows(logits, labels), *whole, rows), labels

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
        return 3 * self.flops_of_row(inputs) * len(inputs["labels"])  # a backward pass costs two forward passes

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
        methods = (self.train_accuracy_counts, self.finite_steps, *self.methods)
        return {type(method).__name__: method for method in methods if isinstance(method, Stateful)}

    def _method_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"method_state_{self.args.process_index}.pth"

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream. Every trial begins with new weights: of `model_init`, or else of the recipe.

        Afterwards the arguments are those of before, and the model has new weights: set the best hyperparameters, as in
        `trainer.args.learning_rate = best.hyperparameters["learning_rate"]`, and train.

        Raises:
            UserError: the Trainer was built with a model that exists once, or there are no validation rows to select by.
        """
        if self.eval_dataset is None:
            raise UserError(
                "hyperparameter_search: trials are compared on validation rows, and there are none. Set data.validation, for "
                "example 0.1."
            )
        if self.begin_again is None:
            raise UserError(
                "hyperparameter_search: every trial begins with new weights, and a model that is given exists once. Give "
                "build_trainer model_init=, a function that makes it, in place of model=."
            )
        before, asked = dict(vars(self.args)), self.model_init
        self.model_init = _of_recipe if asked is None else asked
        try:
            return super().hyperparameter_search(*args, **kwargs)
        finally:
            # upstream leaves no model, and the arguments of the last trial
            vars(self.args).update(before)
            self.create_accelerator_and_postprocess()
            set_seed(self.args.seed)
            self.call_model_init()
            self.model = self.model_wrapped = nn.Module.to(self.loaded.model, self.args.device)
            self.optimizer = self.lr_scheduler = None
            self.model_init = asked

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As upstream; the new model is prepared as the first was, and what is counted of a run begins at zero."""
        assert self.begin_again is not None, "a model that exists once has no model_init"
        made = None if self.model_init is _of_recipe else super().call_model_init(trial)
        before = self.methods
        self.loaded, self.methods = self.begin_again(made)
        for method in (method for method in before if isinstance(method, TrainerCallback)):
            self.remove_callback(method)
        for method in (method for method in self.methods if isinstance(method, TrainerCallback)):
            self.add_callback(method)
        self.processing_class = self.loaded.processor
        refuse_loss_kwargs(self.loaded.model)
        self.finite_steps.model = self.loaded.model
        self.finite_steps.load_state_dict({"skipped": 0, "recent": [], "overflows": 0})
        self.train_accuracy_counts.load_state_dict({"correct": 0, "seen": 0, "epoch": 0})
        self.measurement.set_sums(Measurement(Stopwatch(self.args.device)).sums())
        return self.loaded.model

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


def _of_recipe() -> None:
    """Stands for `model_init` where the recipe makes the model of each trial."""


def refuse_loss_kwargs(model: nn.Module) -> None:
    """Keep the Trainer from handing the row count of an accumulation window to the model, whose head would take it."""
    for part in (model, base_of(model)):
        part.accepts_loss_kwargs = False


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
