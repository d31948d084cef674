"""The techniques that `tune` may try: each is a patch on the recipe, with the reason why it may pay.

Techniques of one axis exclude each other. Those that change what a run learns need the user's leave (`--allow`); those that
cannot help with this recipe on this machine are left out, with the reason. Nothing here measures or imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.recipe import Recipe
from hf_accel.formatting import format_bytes, format_duration, format_percent

# What --allow may name, and what it means.
CHANGES = {
    "batch": "the number of images that batch norm sees at once",
    "image_size": "the size of the images",
    "augmentation": "the augmentation",
}
OTHER_IMAGES = ("image_size", "augmentation")  # whose losses are not those of the recipe from the first step on
SMALLER_SIDES = (0.75, 0.5)
LEAST_CONVOLUTIONS = 0.02  # share of the weights, below which the memory format decides nothing
LEAST_WAIT = 0.02  # share of the time that steps wait for data, below which faster loading changes nothing
LEAST_COMPILED_SECONDS = 60.0  # of a whole run, below which compilation cannot pay
MEMORY_SHARE = 0.9  # of the available memory, which a cache may take, as `inputs.cache` has it
MOST_WORKERS = 8
ADAMW = ("adamw_torch", "adamw_torch_fused")
CROP_AND_FLIP = ("crop", "pad", "pad_mode", "scale", "ratio", "flip")


@dataclass(frozen=True)
class Technique:
    """A patch on the recipe.

    Attributes:
        axis: of techniques with one axis, at most one is in force.
        why: why it may pay, in a sentence.
        changes: what of the training result it changes, a key of CHANGES; None: nothing.
    """

    axis: str
    name: str
    patch: dict[str, Any] = field(hash=False)
    why: str
    changes: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A technique that is not tried."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the first trial has found out about the model, the data and the machine.

    Attributes:
        device: torch's type of the training device.
        threads: that PyTorch's operations on the CPU take.
        mixed_precision: whether a 16-bit format is fast here; `precision_reason` says why.
        train_rows: that train in an epoch of the whole run.
        scored_rows, test_rows: that each evaluation, and the end of the run, scores.
        batch_norm: whether layers use the statistics of the batch that they are given.
        dropout: whether the network draws random numbers in training.
        convolutions: their share of the weights.
        attention: implementation of a model of transformers that has several; None elsewhere.
        cached_bytes_per_row, fill_seconds_per_row: of a cache in memory; None where none can be kept.
        same_size: whether all images that are cached have one size.
        image_size: side of the network's input in pixels; None for texts.
        available_bytes: memory that was free.
    """

    device: str
    cores: int
    threads: int
    mixed_precision: bool
    precision_reason: str
    train_rows: int
    scored_rows: int
    test_rows: int
    batch_norm: bool
    dropout: bool
    convolutions: float
    attention: str | None
    cached_bytes_per_row: float | None
    fill_seconds_per_row: float | None
    same_size: bool
    image_size: int | None
    available_bytes: int


@dataclass(frozen=True)
class Pace:
    """What the first trial says about the recipe's speed: seconds of the whole run, and the share of waiting for data."""

    run_seconds: float
    data_wait: float | None


def techniques(
    recipe: Recipe, facts: Facts, pace: Pace, objective: str, allowed: tuple[str, ...] = ()
) -> tuple[list[Technique], list[LeftOut]]:
    """Everything that may be tried on this recipe, the most promising first, and what is not, with the reason."""
    found: list[Technique] = []
    left_out: list[LeftOut] = []
    for one in (
        *_precision(recipe, facts),
        *_channels_last(recipe, facts),
        *_cache(recipe, facts, objective),
        *_transforms(recipe, facts),
        *_workers(recipe, facts, pace),
        *_micro_batch(recipe, facts),
        *_optimizer(recipe),
        *_kernels(recipe, facts),
        *_attention(recipe, facts),
        *_checkpointing(recipe, objective),
        *_threads(facts),
        *_freed_memory(recipe, facts),
        *_image_size(facts),
        *_augmentation(recipe),
        *_compile(recipe, pace),  # last: its trial takes as long as many others
    ):
        if isinstance(one, LeftOut):
            left_out.append(one)
        elif one.changes is not None and one.changes not in allowed:
            left_out.append(
                LeftOut(one.name, f"it changes {CHANGES[one.changes]}, and so the result: --allow {one.changes}")
            )
        else:
            found.append(one)
    return found, left_out


Found = Iterator[Technique | LeftOut]


def _precision(recipe: Recipe, facts: Facts) -> Found:
    training = recipe.training
    if not facts.mixed_precision:
        yield LeftOut("bf16", facts.precision_reason)
        if training.get("bf16") is True:
            yield Technique(
                "precision",
                "fp32",
                {"training": {"bf16": False}},
                f"{facts.precision_reason}, and bf16 that is emulated is slower than fp32",
            )
        return
    if training.get("bf16") or training.get("fp16"):
        off = {"training": {"bf16": False, "fp16": False}}
        yield Technique("precision", "fp32", off, "small layers lose more by conversions than they gain by 16 bits")
    else:
        auto = {"training": {"bf16": "auto", "fp16": False}}
        yield Technique("precision", "mixed_precision", auto, facts.precision_reason)
    if facts.device == "cuda" and not training.get("fp16"):
        fp16 = {"training": {"fp16": True, "bf16": False}}
        yield Technique("precision", "fp16", fp16, "some kernels are faster in fp16 than in bf16")


def _channels_last(recipe: Recipe, facts: Facts) -> Found:
    if recipe.model.task != "image-classification":
        return
    if facts.convolutions < LEAST_CONVOLUTIONS:
        yield LeftOut("channels_last", f"convolutions hold {format_percent(facts.convolutions)} of the weights")
    elif recipe.model.channels_last:
        off = {"model": {"channels_last": False}}
        yield Technique("memory_format", "contiguous", off, "some convolutions are faster in the plain memory format")
    else:
        on = {"model": {"channels_last": True}}
        yield Technique("memory_format", "channels_last", on, "most convolutions are faster on NHWC tensors")


def _cache(recipe: Recipe, facts: Facts, objective: str) -> Found:
    if facts.cached_bytes_per_row is None:
        yield LeftOut("cache", "the rows of this run cannot be kept decoded")
        return
    mode, size = recipe.data.cache, facts.cached_bytes_per_row * facts.train_rows
    if mode != "memory":
        if size > MEMORY_SHARE * facts.available_bytes:
            free = format_bytes(facts.available_bytes)
            yield LeftOut("cache_memory", f"the decoded images take {format_bytes(size)}, and {free} are free")
        else:
            yield Technique("cache", "cache_memory", {"data": {"cache": "memory"}}, "each image is decoded once")
    if facts.device != "cpu" and facts.same_size and recipe.data.transforms == "device" and mode != "device":
        on_device = {"data": {"cache": "device"}}
        yield Technique("cache", "cache_device", on_device, "batches are read where they are used, without a copy")
    if mode == "none" or (mode == "memory" and objective == "memory"):
        why = "each image is decoded once, and the file takes no memory of the process"
        yield Technique("cache", "cache_disk", {"data": {"cache": "disk"}}, why)
    if mode != "none" and recipe.training.get("num_train_epochs", 3) <= 2:
        why = "a run that sees each image once or twice gains little by keeping it"
        yield Technique("cache", "cache_none", {"data": {"cache": "none"}}, why)


def _transforms(recipe: Recipe, facts: Facts) -> Found:
    if recipe.model.task != "image-classification":
        return
    if recipe.data.transforms == "loader":
        why = "whole batches are augmented at once, on the training device"
        yield Technique("transforms", "device_transforms", {"data": {"transforms": "device"}}, why)
    elif recipe.data.cache != "device":
        patch: dict[str, Any] = {"data": {"transforms": "loader"}}
        if not recipe.training.get("dataloader_num_workers"):
            patch["training"] = {"dataloader_num_workers": _workers_here(facts)}
        yield Technique("transforms", "loader_transforms", patch, "loader processes augment while the device computes")


def _workers_here(facts: Facts) -> int:
    return max(1, min(MOST_WORKERS, facts.cores))


def _workers(recipe: Recipe, facts: Facts, pace: Pace) -> Found:
    now = recipe.training.get("dataloader_num_workers", 0)
    if recipe.data.cache == "device":
        yield LeftOut("workers", "data.cache is device, so nothing is loaded")
        return
    if now:
        off = {"training": {"dataloader_num_workers": 0, "dataloader_prefetch_factor": None}}
        yield Technique("workers", "no_workers", off, "without processes, no batch is copied between them")
    if pace.data_wait is not None and pace.data_wait < LEAST_WAIT:
        yield LeftOut("workers", f"steps wait {format_percent(pace.data_wait)} of the time for data")
        return
    counts = sorted({1, _workers_here(facts)} - {now})
    for count in counts:
        yield Technique(
            "workers",
            f"workers_{count}",
            {"training": {"dataloader_num_workers": count}},
            f"{'a process loads' if count == 1 else f'{count} processes load'} the next batches meanwhile",
        )
    most = max(now, *counts) if counts else now
    prefetch = {"training": {"dataloader_num_workers": most, "dataloader_prefetch_factor": 4}}
    if recipe.training.get("dataloader_prefetch_factor") != 4:
        yield Technique("workers", "prefetch_4", prefetch, "batches that take unequal time are read further ahead")


def _micro_batch(recipe: Recipe, facts: Facts) -> Found:
    batch = recipe.training.get("per_device_train_batch_size", 8)
    steps = recipe.training.get("gradient_accumulation_steps", 1)
    changes = "batch" if facts.batch_norm else None
    for divisor in (2, 4):
        if batch % divisor == 0 and batch // divisor >= 4:
            why = "the activations of a smaller batch stay nearer to the processor, and take less memory"
            yield _split_batch(batch // divisor, steps * divisor, why, changes)
    if steps % 2 == 0:
        why = "larger batches use the device better, and there are fewer of them"
        yield _split_batch(batch * 2, steps // 2, why, changes)


def _split_batch(batch: int, steps: int, why: str, changes: str | None) -> Technique:
    patch = {"training": {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}}
    return Technique("micro_batch", f"micro_batch_{batch}", patch, why, changes)


def _optimizer(recipe: Recipe) -> Found:
    now = recipe.training.get("optim", ADAMW[1])
    if now not in ADAMW:
        yield LeftOut("optimizer", f"optim {now} has one form")
        return
    other = ADAMW[1 - ADAMW.index(now)]
    why = "one kernel updates all weights" if other.endswith("fused") else "the fused kernel is slower on some devices"
    name = "fused_optimizer" if other.endswith("fused") else "plain_optimizer"
    yield Technique("optimizer", name, {"training": {"optim": other}}, why)


def _compile(recipe: Recipe, pace: Pace) -> Found:
    if recipe.training.get("torch_compile"):
        off = {"training": {"torch_compile": False}}
        yield Technique("compile", "eager", off, "compilation takes time that a short run does not get back")
    elif pace.run_seconds < LEAST_COMPILED_SECONDS:
        yield LeftOut(
            "compile", f"the whole run takes {format_duration(pace.run_seconds)}, and compilation about as long"
        )
    else:
        on = {"training": {"torch_compile": True}}
        yield Technique("compile", "compile", on, "fused kernels read and write activations less often")


def _kernels(recipe: Recipe, facts: Facts) -> Found:
    if facts.device != "cpu" or not facts.mixed_precision:
        return
    if recipe.model.kernels == "auto":
        why = "PyTorch's own bf16 kernels may be faster than those that replace them"
        yield Technique("kernels", "library_kernels", {"model": {"kernels": "library"}}, why)
    else:
        why = "some bf16 kernels of PyTorch are slow on a CPU"
        yield Technique("kernels", "cpu_kernels", {"model": {"kernels": "auto"}}, why)


def _attention(recipe: Recipe, facts: Facts) -> Found:
    others = {"sdpa": "eager", "eager": "sdpa"}
    if facts.attention in others:
        other = others[facts.attention]
        why = {"sdpa": "fused attention keeps no score matrix", "eager": "short sequences gain nothing by fusion"}[
            other
        ]
        yield Technique("attention", f"attention_{other}", {"model": {"args": {"_attn_implementation": other}}}, why)


def _checkpointing(recipe: Recipe, objective: str) -> Found:
    if recipe.training.get("gradient_checkpointing"):
        off = {"training": {"gradient_checkpointing": False}}
        yield Technique("checkpointing", "keep_activations", off, "the forward pass is not computed twice")
    elif objective == "memory":
        on = {"training": {"gradient_checkpointing": True}}
        yield Technique("checkpointing", "checkpointing", on, "activations are computed again in place of being kept")
    else:
        yield LeftOut("checkpointing", "it saves memory and costs speed: --objective memory")


def _threads(facts: Facts) -> Found:
    if facts.device != "cpu":
        return
    for count in sorted({facts.cores, facts.cores // 2} - {0, facts.threads}, reverse=True):
        why = "two threads of one core share what it computes with" if count < facts.cores else "every core computes"
        yield Technique("threads", f"cpu_threads_{count}", {"training": {"cpu_threads": count}}, why)


def _freed_memory(recipe: Recipe, facts: Facts) -> Found:
    if facts.device != "cpu":
        return
    if not recipe.training.get("keep_freed_memory", True):
        on = {"training": {"keep_freed_memory": True}}
        yield Technique("allocator", "keep_freed_memory", on, "pages are not zeroed again at each step")


def _image_size(facts: Facts) -> Found:
    if facts.image_size is None:
        return
    step = 32 if facts.image_size >= 128 else 8  # networks halve the side up to five times
    for side in dict.fromkeys(int(share * facts.image_size) // step * step for share in SMALLER_SIDES):
        if 0 < side < facts.image_size:
            why = "every layer computes fewer pixels"
            yield Technique("image_size", f"image_size_{side}", {"data": {"image_size": side}}, why, "image_size")


def _augmentation(recipe: Recipe) -> Found:
    on, default = recipe.data.augment.switched_on(), AugmentSettings()
    more = {name: getattr(default, name) for name in on if name not in CROP_AND_FLIP}
    if more:
        why = f"cropping and flipping cost less than {', '.join(more)}"
        yield Technique("augmentation", "crop_and_flip", {"data": {"augment": more}}, why, "augmentation")
    if on:
        off = {**more, "crop": "none", "flip": False}
        why = "unchanged images are prepared once"
        yield Technique("augmentation", "no_augmentation", {"data": {"augment": off}}, why, "augmentation")
