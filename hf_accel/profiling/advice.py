"""The recipe lines that may help, in one table: by what bounds a run, and by the operators that take its time.

A line is shown only where the recipe does not have it yet. Whether it pays on this machine is measured by
`hf-accel compare`, not promised here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """The settings of a run that the lines below would change."""

    device: str  # cpu, cuda...
    image_size: int | None  # pixels; None: texts
    has_native_bf16: bool
    precision: str  # fp32, bf16 or fp16
    channels_last: bool
    kernels: str  # auto or library
    cache: str  # memory, disk, device or none
    transforms: str  # device or loader
    workers: int
    cores: int
    pin_memory: bool
    optim: str
    is_compiled: bool
    keep_freed_memory: bool
    checkpointing: bool  # of activations
    freezes: bool
    has_batch_norm: bool
    pretrained: bool
    save_strategy: str
    groups_by_length: bool

    @property
    def is_text(self) -> bool:
        return self.image_size is None


@dataclass(frozen=True)
class Advice:
    """
    Attributes:
        line: of a recipe.
        why: what it does.
        helps: what bounds a run, or kinds of operators (`operators.GROUPS`).
        applies: whether this run may gain from it.
    """

    line: str
    why: str
    helps: tuple[str, ...]
    applies: Callable[[Setup], bool]


WORTH_RESIZING = 160  # pixels: smaller images cannot shrink much
CONVOLUTION, PRODUCT, ATTENTION = "convolution", "matrix product", "attention"
NORMALISATION, ELEMENTWISE, COPIES = "normalisation", "elementwise and other", "conversion and copies"
ADVICE = (
    Advice(
        "data: {cache: memory}", "every row is decoded once (`disk` if they do not fit)", ("input",),
        lambda s: s.cache == "none",
    ),
    Advice(
        "data: {transforms: device}", "whole batches are transformed on the training device", ("input",),
        lambda s: not s.is_text and s.transforms == "loader",
    ),
    Advice(
        "training: {dataloader_num_workers: 2}", "batches are prepared while the device computes", ("input",),
        lambda s: s.workers == 0 and s.cores > 1,
    ),
    Advice(
        "training: {dataloader_pin_memory: true}", "batches are copied while the device computes", ("input",),
        lambda s: s.device == "cuda" and not s.pin_memory,
    ),
    Advice(
        "training: {bf16: auto}", "half the bytes, and the matrix units for 16 bits",
        ("compute", "memory bandwidth", CONVOLUTION, PRODUCT, ATTENTION, NORMALISATION, ELEMENTWISE, "pooling"),
        lambda s: s.precision == "fp32" and (s.has_native_bf16 or s.device == "cuda"),
    ),
    Advice(
        "model: {channels_last: true}", "convolutions and batch norm without reordering",
        ("compute", "memory bandwidth", CONVOLUTION, NORMALISATION, "pooling"),
        lambda s: not s.is_text and not s.channels_last and s.has_batch_norm,
    ),
    Advice(
        "model: {kernels: auto}", "replaces bf16 operations that PyTorch computes slowly on a CPU",
        ("compute", CONVOLUTION, ATTENTION),
        lambda s: s.device == "cpu" and s.precision == "bf16" and s.kernels == "library",
    ),
    Advice(
        "training: {keep_freed_memory: true}", "large tensors of a step get the pages of the step before",
        ("memory bandwidth", NORMALISATION, ELEMENTWISE, COPIES, "pooling"),
        lambda s: s.device == "cpu" and not s.keep_freed_memory,
    ),
    Advice(
        "training: {torch_compile: true}", "joins operators that only move memory; costs a minute or more at the start",
        ("memory bandwidth", "host", NORMALISATION, ELEMENTWISE, COPIES, "softmax and loss"),
        lambda s: not s.is_compiled,
    ),
    Advice(
        "model: {freeze_batch_norm: true}", "batch norm without statistics of the batch, for pretrained weights and few rows",
        ("memory bandwidth", NORMALISATION), lambda s: s.has_batch_norm and s.pretrained,
    ),
    Advice(
        "training: {gradient_checkpointing: false}", "no activation is computed twice, for more memory",
        ("compute", "memory bandwidth"), lambda s: s.checkpointing,
    ),
    Advice(
        "training: {train_sampling_strategy: group_by_length}", "texts of a batch have similar lengths, so less is padding",
        ("compute", "memory bandwidth", PRODUCT, ATTENTION, ELEMENTWISE), lambda s: s.is_text and not s.groups_by_length,
    ),
    Advice(
        "model: {freeze: backbone}", "only the classifier learns: less to compute backward and to update",
        ("compute", "optimizer"), lambda s: s.pretrained and not s.freezes,
    ),
    Advice(
        "data: {progressive_resizing: {start: 128, full_at: 0.75}}", "smaller images in the first epochs",
        ("compute", CONVOLUTION), lambda s: s.image_size is not None and s.image_size >= WORTH_RESIZING,
    ),
    Advice(
        "training: {per_device_train_batch_size: ...}", "a larger batch: fewer, larger operators and fewer steps",
        ("host", "optimizer"), lambda s: True,
    ),
    Advice(
        "training: {optim: adamw_torch_fused}", "AdamW in one kernel", ("optimizer", "host"),
        lambda s: s.optim == "adamw_torch",
    ),
    Advice(
        "training: {optim: sgd, optim_args: momentum=0.9}", "one state per weight in place of two; needs its own learning rate",
        ("optimizer",), lambda s: s.optim.startswith("adam"),
    ),
    Advice(
        "training: {save_strategy: epoch}", "one checkpoint per epoch; or a larger `save_steps`", ("saving",),
        lambda s: s.save_strategy == "steps",
    ),
    Advice(
        "training: {save_only_model: true}", "checkpoints without the optimizer; a run cannot be resumed from them", ("saving",),
        lambda s: True,
    ),
)  # fmt: skip


def advice(what: str, setup: Setup) -> list[Advice]:
    """The lines that may help against a bound, or with a kind of operator, in the order of the table."""
    return [entry for entry in ADVICE if what in entry.helps and entry.applies(setup)]
