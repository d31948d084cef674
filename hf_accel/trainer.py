"""`build_trainer(recipe)`: the one place where data, model, transforms and measurement are wired to the Trainer.

The Trainer subclass is thin. It changes five things that upstream gets wrong or leaves out for images: batches arrive
as uint8 and are transformed on the training device, the loss is exact under gradient accumulation, evaluation keeps
five class numbers a row instead of all logits, a checkpoint is loaded whole, and what cannot be compiled is trained
eagerly. Its optimizer may be Muon.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.trainer_utils import EvalLoopOutput

from hf_accel.arguments import Arguments, training_arguments
from hf_accel.data import ImageSplit, Splits, load_splits
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.inputs.augment import EvalTransform, TrainTransform
from hf_accel.inputs.cache import open_evaluation_pixels, open_training_pixels
from hf_accel.inputs.dataset import ImageBatches, TransformedBatches
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.resizing import TrainingSides, training_sides
from hf_accel.inputs.sampling import EpochSampler, draw_partners, mixes
from hf_accel.inputs.views import mean_logits, views_note
from hf_accel.measure import MeasureCallback, Measurement, Stopwatch
from hf_accel.methods.allocator import keep_freed_memory
from hf_accel.methods.cpu_kernels import CpuKernels
from hf_accel.methods.losses import balanced_class_weights, cross_entropy_sum
from hf_accel.methods.muon import MuonSettings, build_muon
from hf_accel.methods.whitening import whiten_stem
from hf_accel.metrics import classification_metrics
from hf_accel.model import LoadedModel, flops_per_image, load_model
from hf_accel.progress import BarCallback
from hf_accel.recipe import Recipe
from hf_accel.report import NOT_COMPILED

logger = logging.getLogger(__name__)

TOP_K = 5


class ImageTrainer(Trainer):
    """A Trainer whose batches are uint8 images, transformed on the training device.

    Args:
        train_transform: batch dictionary on the device -> `pixel_values` (B, 3, S, S) float32 and `labels`.
        eval_transform: the same without randomness.
        class_weights: (C,) float32 weights in the training loss, or None.
        num_labels: C.
        flops_per_image: of one forward pass.
        kernels: context in which every step computes.
        muon: settings of the optimizer Muon; None for the one that `args.optim` names.
        flops_by_side: the same for training images of other sizes, by their side in pixels.
        test_time_augmentation: the views whose mean logits an evaluation scores, see `inputs.views`.
        kwargs: what Trainer takes.
    Raises:
        UserError: Muon under FSDP or DeepSpeed, which cut up the matrices that it needs whole.
    """

    def __init__(
        self,
        *,
        train_transform: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        eval_transform: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        class_weights: Tensor | None,
        num_labels: int,
        flops_per_image: int,
        kernels: AbstractContextManager,
        muon: MuonSettings | None = None,
        flops_by_side: dict[int, int] | None = None,
        test_time_augmentation: str = "none",
        **kwargs: Any,
    ) -> None:
        model: nn.Module = kwargs["model"]
        # The loss below counts the rows of a whole accumulation window; the model must not be handed that count.
        model.accepts_loss_kwargs = False
        super().__init__(compute_loss_func=self.loss, data_collator=_already_batched, **kwargs)
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.class_weights = None if class_weights is None else class_weights.to(self.args.device)
        self.num_labels = num_labels
        self.flops_per_image = flops_per_image
        self.kernels = kernels
        self.muon = muon
        if muon is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise UserError(
                "training.optim: muon needs whole weights, and FSDP and DeepSpeed cut them up. Launch without them, or "
                "choose another training.optim."
            )
        self.flops_by_side = flops_by_side or {}
        self.test_time_augmentation = test_time_augmentation
        self.measurement = Measurement(Stopwatch(self.args.device))
        self.train_correct = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self.train_seen = 0
        self.compile_failure: str | None = None  # why a run that was to be compiled is eager

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As upstream; from the first graph that cannot be compiled on, without compilation."""
        if self.args.torch_compile:
            try:
                return super().compute_loss(model, dict(inputs), *args, **kwargs)  # upstream takes the labels out
            except torch._dynamo.exc.TorchDynamoException as error:
                self._stop_compiling(error)
        if self.compile_failure is not None and isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod  # the loop holds the compiled one to its end
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _stop_compiling(self, error: Exception) -> None:
        reason = " ".join(str(error).split("\n\n")[0].split())
        self.compile_failure = (
            f"{NOT_COMPILED}warning: the network cannot be compiled here ({reason}), so this run is eager from step "
            f"{self.state.global_step + 1} on"
        )
        logger.warning(self.compile_failure)
        self.args.torch_compile = False
        self.measurement.compiled = False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.muon is None:
            return super().create_optimizer(model)
        if self.optimizer is None:
            self.optimizer = build_muon(self.model, self.muon, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def loss(
        self, outputs: ImageClassifierOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Mean cross-entropy over all rows of an accumulation window; smoothing and weights in training only."""
        logits = outputs["logits"]
        training = self.model.training
        total = cross_entropy_sum(
            logits,
            labels,
            self.class_weights if training else None,
            self.args.label_smoothing_factor if training else 0.0,
        )
        if training:
            with torch.no_grad():
                hard = labels.argmax(-1) if labels.is_floating_point() else labels
                self.train_correct += (logits.argmax(-1) == hard).sum()
                self.train_seen += len(labels)
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def train_accuracy(self) -> float | None:
        """Accuracy over the training batches of the last epoch, as trained on: augmented, dropout on."""
        if not self.train_seen:
            return None
        counts = torch.stack([self.train_correct, torch.full_like(self.train_correct, self.train_seen)])
        correct, seen = self.accelerator.reduce(counts).tolist()
        return correct / seen

    def forget_train_accuracy(self) -> None:
        self.train_correct.zero_()
        self.train_seen = 0

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        with self.measurement.waiting():
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.measurement.count_images(len(batch["labels"]), batch.get("side"))
        return batches, num_items

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | int | None:
        # upstream counts the elements of `labels`; soft labels of the loader are (B, C)
        rows = [{"labels": x["labels"][..., 0] if x["labels"].ndim == 2 else x["labels"]} for x in batch_samples]
        return super()._get_num_items_in_batch(rows, device)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with self.kernels:
            return super().training_step(*args, **kwargs)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(inputs)
        if "pixel_values" in inputs:  # transformed by the loader
            return {name: inputs[name] for name in ("pixel_values", "labels")}
        if not self.model.training:
            return self.eval_transform(inputs)
        with self.measurement.transforming():
            return self.train_transform(inputs)

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        # upstream drops the last, shorter batch of an evaluation too, and its rows silently go unscored
        asked = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = asked and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = asked

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        self.eval_transform.resident = dataloader.dataset.pixels.resident
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: ImageBatches | None = None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochSampler(len(dataset), seed=seed)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, tuple[Tensor, ...] | None, Tensor | None]:
        """Keep of each row the five likeliest classes, the confidence of the first, the loss, and the row number."""
        rows = inputs["rows"].to(self.args.device)
        if self.test_time_augmentation != "none":
            model = partial(_mean_over_views, model, self.test_time_augmentation)
        with self.kernels:
            loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if logits is None:
            return loss, None, labels
        if isinstance(logits, tuple):  # outputs beside the logits, as DeiT with teacher has
            logits = logits[0]
        logits = logits.float()
        confidence, top_ids = logits.softmax(-1).topk(min(TOP_K, self.num_labels))
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return loss, (top_ids, confidence[:, 0], losses, rows), labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["train_seconds"] = round(self.measurement.total_seconds(), 4)
            rate = self.measurement.recent_images_per_second()
            if rate is not None:
                logs["images_per_second"] = round(rate * self.args.world_size, 2)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        forward = self.flops_by_side.get(inputs.get("side"), self.flops_per_image)
        return 3 * forward * len(inputs["labels"])  # a backward pass costs two forward passes

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Upstream loads Hub-format keys into other module names with strict=False and drops the encoder of ViT, Swin,
        # DINOv2... with a log line: https://github.com/huggingface/transformers/issues/48805
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_weights(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
            return
        load_weights(self.model, self.state.best_model_checkpoint)


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Load a saved folder into a model of the same class, every tensor or an error."""
    saved = type(model).from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(saved.state_dict(), strict=True)


def build_trainer(
    recipe: Recipe,
    splits: Splits | None = None,
    loaded: LoadedModel | None = None,
    arguments: Arguments | None = None,
) -> ImageTrainer:
    """Everything a recipe asks for, ready for `.train()`.

    Args:
        recipe: from `load_recipe`.
        splits: from `load_splits`; None loads them.
        loaded: from `load_model`; None loads it. Its head must fit the labels of `splits`.
        arguments: from `training_arguments`; None builds them.
    Returns:
        A Trainer with `splits`, `loaded` and `notes` (what was chosen for the user and why) as attributes, and
        `test_dataset` beside `train_dataset` and `eval_dataset`.
    Raises:
        UserError: anything in the recipe that cannot run here.
    """
    selection = recipe.data.validation > 0
    if recipe.data.transforms == "loader" and recipe.data.cache == "device":
        raise UserError(
            f"{recipe.name}: data.transforms is loader and data.cache is device, but the loader has no pixels that are on "
            "the device. Set data.transforms: device, or data.cache: memory."
        )
    arguments = arguments or training_arguments(recipe, has_validation=selection)
    args = arguments.training
    splits = splits or load_splits(recipe.data, seed=args.seed, selection=selection)
    notes = []
    if arguments.keep_freed_memory:
        refusal = keep_freed_memory()
        notes.append(f"freed memory {'stays for the next step' if refusal is None else f'is given back: {refusal}'}")
    set_seed(args.seed)  # the new head must not depend on what was drawn before
    loaded = loaded or load_model(recipe.model, splits.label_names, recipe.data.image_size)
    require_space(recipe.output_dir, args, loaded.parameters)
    num_labels = len(splits.label_names)
    flops = flops_per_image(loaded.model, loaded.image_size)
    preprocessing = Preprocessing.of(loaded.processor)
    stem_notes = [whiten_stem(loaded.model, splits.train, preprocessing)] if recipe.model.whiten_stem else []
    sides, flops_by_side = None, {}
    if recipe.data.progressive_resizing is not None:
        sides = training_sides(recipe.data.progressive_resizing, preprocessing, args, len(splits.train))
        setting = "data.progressive_resizing"
        flops_by_side = {side: flops_per_image(loaded.model, side, setting) for side in sides.first_epochs()}
    train_dataset = _train_batches(splits.train, recipe, preprocessing, args, sides)
    train_transform = TrainTransform(
        recipe.data.augment,
        preprocessing,
        num_labels=num_labels,
        seed=args.seed,
        channels_last=recipe.model.channels_last,
        resident=train_dataset.pixels.resident,
    )
    if recipe.data.transforms == "loader":
        train_dataset = TransformedBatches(train_dataset, train_transform)
    # opened before the Trainer, whose constructor makes the output folder
    eval_dataset = _eval_batches(splits.validation, recipe, preprocessing, args.device)
    test_dataset = _eval_batches(splits.test, recipe, preprocessing, args.device)
    class_weights = _class_weights(recipe, splits)
    trainer = ImageTrainer(
        model=loaded.model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=loaded.processor,
        compute_metrics=EvaluationMetrics(num_labels),
        train_transform=train_transform,
        eval_transform=EvalTransform(preprocessing, channels_last=recipe.model.channels_last),
        class_weights=class_weights,
        num_labels=num_labels,
        flops_per_image=flops,
        kernels=chosen_kernels(recipe, args),
        muon=arguments.muon,
        flops_by_side=flops_by_side,
        test_time_augmentation=recipe.data.test_time_augmentation,
    )
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    trainer.measuring = MeasureCallback(trainer.measurement, args.device)
    trainer.add_callback(trainer.measuring)
    trainer.add_callback(BarCallback())
    trainer.add_callback(LastEpochCallback(trainer))
    if arguments.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(**arguments.early_stopping))
    trainer.splits = splits
    trainer.loaded = loaded
    trainer.test_dataset = test_dataset
    trainer.arguments = arguments
    notes += views_note(recipe.data.test_time_augmentation)
    if sides is not None:
        notes.append(sides.note)
    if isinstance(trainer.kernels, CpuKernels):
        notes.append("kernels: those of PyTorch that are slow in bf16 on a CPU are replaced")
    trainer.notes = [*splits.notes, *loaded.notes, *stem_notes, *arguments.notes, *notes]
    return trainer


def chosen_kernels(recipe: Recipe, args: TrainingArguments) -> AbstractContextManager:
    """The context in which steps compute; a compiler finds kernels of its own."""
    replaces = recipe.model.kernels == "auto" and args.device.type == "cpu" and args.bf16 and not args.torch_compile
    return CpuKernels() if replaces else nullcontext()


def require_space(folder: Path, args: TrainingArguments, parameters: int) -> None:
    """Refuse a run whose checkpoints will not fit on the disk, before anything is written.

    Raises:
        UserError: fewer bytes are free than the model and its checkpoints (weights and two moments each) take.
    """
    kept = args.save_total_limit + 1 if args.save_total_limit else 2  # the newest is written before the oldest goes
    checkpoints = 0 if args.save_strategy == "no" else kept
    needed = 4 * parameters * (1 + checkpoints * (1 if args.save_only_model else 3))
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(
            f"--output_dir {folder}: {place} is no folder that can be written. Choose another --output_dir."
        )
    # what an unfinished or overwritten run left here makes room as this one writes
    left = sum(path.stat().st_size for path in folder.glob("checkpoint-*/*") if path.is_file())
    free = shutil.disk_usage(place).free
    if free + left < needed:
        raise UserError(
            f"{folder}: no space left for this run: it needs about {format_bytes(needed)} for the model and {checkpoints} "
            f"checkpoints, and {format_bytes(free)} are free. Free some, choose another --output_dir, or keep fewer checkpoints "
            "(--save_strategy no, --save_only_model true)."
        )


def build_evaluator(
    recipe: Recipe, loaded: LoadedModel, split: ImageSplit, arguments: Arguments
) -> tuple[ImageTrainer, ImageBatches]:
    """A Trainer that only scores, and the batches of `split` for its `predict`."""
    preprocessing = Preprocessing.of(loaded.processor)
    transform = EvalTransform(preprocessing, channels_last=recipe.model.channels_last)
    num_labels = len(split.label_names)
    trainer = ImageTrainer(
        model=loaded.model,
        args=arguments.training,
        compute_metrics=EvaluationMetrics(num_labels),
        train_transform=transform,
        eval_transform=transform,
        class_weights=None,
        num_labels=num_labels,
        flops_per_image=0,
        kernels=chosen_kernels(recipe, arguments.training),
        test_time_augmentation=recipe.data.test_time_augmentation,
    )
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    return trainer, _eval_batches(split, recipe, preprocessing, arguments.training.device)


class LastEpochCallback(TrainerCallback):
    """Starts the training accuracy anew with each epoch."""

    def __init__(self, trainer: ImageTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.forget_train_accuracy()


class EvaluationMetrics:
    """`compute_metrics` of the Trainer: loss, accuracy, top-5 and F1 from what `prediction_step` kept."""

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        top_ids, _, losses, rows = prediction.predictions
        # a distributed sampler pads the last batch: a row counted twice would change the figures silently
        assert len(np.unique(rows)) == len(rows), "a row was evaluated twice"
        metrics = classification_metrics(top_ids, prediction.label_ids, self.num_labels)
        # the Trainer's own eval_loss is a mean of batch means, which depends on the batches and the processes
        metrics["loss"] = float(losses.mean(dtype=np.float64))
        return {name: value for name, value in metrics.items() if value is not None}


def _mean_over_views(model: nn.Module, kind: str, pixel_values: Tensor) -> ImageClassifierOutput:
    return ImageClassifierOutput(
        logits=mean_logits(lambda view: model(pixel_values=view)["logits"], pixel_values, kind)
    )


def _already_batched(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """`ImageBatches.__getitems__` returns whole batches, so there is nothing to collate."""
    return batch


def _train_batches(
    split: ImageSplit,
    recipe: Recipe,
    preprocessing: Preprocessing,
    args: TrainingArguments,
    sides: TrainingSides | None,
) -> ImageBatches:
    pixels = open_training_pixels(split, recipe.data, preprocessing, args.device)
    partners = partial(draw_partners, args.seed, len(split)) if mixes(recipe.data.augment) else None
    return ImageBatches(split, pixels, partners, sides)


def _eval_batches(
    split: ImageSplit | None, recipe: Recipe, preprocessing: Preprocessing, device: torch.device
) -> ImageBatches | None:
    if split is None:
        return None
    return ImageBatches(split, open_evaluation_pixels(split, recipe.data, preprocessing, device))


def _class_weights(recipe: Recipe, splits: Splits) -> Tensor | None:
    asked = recipe.data.class_weights
    if asked is None:
        return None
    if asked == "balanced":
        return balanced_class_weights(torch.as_tensor(splits.train.labels), len(splits.label_names))
    if len(asked) != len(splits.label_names):
        raise UserError(
            f"{recipe.name}: data.class_weights has {len(asked)} numbers, expected one for each of the "
            f"{len(splits.label_names)} classes"
        )
    return torch.tensor(asked, dtype=torch.float32)
