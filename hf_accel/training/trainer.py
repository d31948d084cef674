"""The Trainer whose batches are images.

It is thin, and changes six things that upstream gets wrong or leaves out for images: batches arrive as uint8 and are
transformed on the training device, the loss is exact under gradient accumulation, batch norm counts a batch once under
activation checkpointing, evaluation keeps five class numbers a row instead of all logits, a checkpoint is loaded whole,
and what cannot be compiled is trained eagerly. Its optimizer may be Muon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.trainer_utils import EvalLoopOutput

from hf_accel.errors import UserError
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.sampling import EpochSampler
from hf_accel.measure.steps import Measurement, Stopwatch
from hf_accel.methods.batch_norm import UpdatedOnce
from hf_accel.methods.losses import cross_entropy_sum
from hf_accel.methods.muon import MuonSettings, build_muon
from hf_accel.training.evaluation import _mean_over_views

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
        for stock in (ProgressCallback, PrinterCallback):  # our own bar is in progress.py
            self.remove_callback(stock)
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.class_weights = None if class_weights is None else class_weights.to(self.args.device)
        self.num_labels = num_labels
        self.flops_per_image = flops_per_image
        self.kernels = kernels
        self.statistics = UpdatedOnce(model if self.args.gradient_checkpointing else None)
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
            f"torch_compile: warning: the network cannot be compiled here ({reason}), so this run is eager from step "
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
            self.statistics.hold()
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
        with self.kernels, self.statistics:
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
    saved = type(model).from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    model.load_state_dict(saved.state_dict(), strict=True)


class LastEpochCallback(TrainerCallback):
    """Starts the training accuracy anew with each epoch."""

    def __init__(self, trainer: ImageTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.forget_train_accuracy()


def _already_batched(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """`ImageBatches.__getitems__` returns whole batches, so there is nothing to collate."""
    return batch
