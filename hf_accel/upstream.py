"""Known faults of the libraries: what happens, whom it concerns, and what this package does about it.

`hf-accel doctor` says which of them concern a recipe; `docs/upstream.md` is made from this list (`hf-accel doctor --faults`).
A fault stays in the list until no supported version of the library has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from hf_accel.config.domains import TEXT

if TYPE_CHECKING:
    from hf_accel.config.recipe import Recipe

INTRODUCTION = """\
# Faults of the libraries that are fixed here

A test guards each of them. `hf-accel doctor --recipe NAME` lists those that concern a recipe, and `hf-accel doctor --faults`
prints this page. "Seen in" is the version in which the fault was last seen; where a test looks for the fault itself, that test
fails as soon as the library is repaired, and what is done here about it can go.
"""
TRANSFORMERS, TORCH, ACCELERATE, EVALUATE = "transformers", "torch", "accelerate", "evaluate"
TRANSFORMERS_JS = "@huggingface/transformers"  # runs where an exported model does, and not here


@dataclass(frozen=True)
class Fault:
    """A fault of a library.

    Attributes:
        library: its distribution.
        seen_in: the version in which it was last seen.
        what: happens, as Markdown; `link` is set on its first words, up to the first "|".
        here: what this package does about it.
        tests: files that guard `here`.
        concerns: whether a recipe can meet it, judged by the recipe alone; None: any can.
        link: the report.
        fixed_in: the first version without it; None: there is none yet.
        watch: "file::test" that fails when the library no longer has it.
    """

    library: str
    seen_in: str
    what: str
    here: str
    tests: tuple[str, ...]
    concerns: Callable[[Recipe], bool] | None
    link: str | None = None
    fixed_in: str | None = None
    watch: str | None = None

    def is_in(self, version: str) -> bool:
        """Whether a version of the library has it."""
        return self.fixed_in is None or Version(version) < Version(self.fixed_in)

    @property
    def sentence(self) -> str:
        """`what` without Markdown."""
        return self.what.replace("|", "").replace("`", "")


def faults_of(recipe: Recipe | None, versions: Mapping[str, str | None]) -> list[Fault]:
    """The faults that a recipe can meet with these versions.

    Args:
        recipe: None: any recipe.
        versions: library -> version; None: it is not installed.
    """
    installed = {name: version for name, version in versions.items() if version is not None}
    return [
        fault
        for fault in FAULTS
        if (fault.library == TRANSFORMERS_JS or (fault.library in installed and fault.is_in(installed[fault.library])))
        and (fault.concerns is None or recipe is None or fault.concerns(recipe))
    ]


def faults_page() -> str:
    """docs/upstream.md."""
    lines = ["| library, seen in | fault | in hf_accel | tested in | tells when it is fixed |", "|---|---|---|---|---|"]
    for fault in FAULTS:
        linked, _, rest = fault.what.rpartition("|")
        what = f"[{linked}]({fault.link}){rest}" if fault.link else fault.what
        tests = ", ".join(f"`{test}`" for test in fault.tests)
        watch = f"`{fault.watch.split('::')[1]}`" if fault.watch else "-"
        lines.append(f"| {fault.library} {fault.seen_in} | {what} | {fault.here} | {tests} | {watch} |")
    return f"{INTRODUCTION}\n" + "\n".join(lines)


def _is_of_hub(recipe: Recipe) -> bool:
    """Whether the model is one of transformers' own classes."""
    return not (recipe.model.name.startswith("hf_accel/") or _is_of_timm(recipe))


def _is_of_timm(recipe: Recipe) -> bool:
    try:  # a folder that transformers wrote, or that was downloaded from the Hub
        config = (Path(recipe.model.name).expanduser() / "config.json").read_text("utf-8")
    except (OSError, ValueError):
        config = ""
    return recipe.model.name.startswith("timm/") or '"timm_wrapper"' in config or '"architecture"' in config


def _is_of_images(recipe: Recipe) -> bool:
    return recipe.model.task != TEXT


def _accumulates(recipe: Recipe) -> bool:
    return recipe.training.get("gradient_accumulation_steps", 1) > 1


def _checkpoints_activations(recipe: Recipe) -> bool:
    return any(recipe.training.get(name) for name in ("gradient_checkpointing", "activation_checkpointing"))


def _may_be_bf16(recipe: Recipe) -> bool:
    return bool(recipe.training.get("bf16"))


_EQUIVALENCE = "tests/training/test_equivalence.py"
_PREEMPTION = "tests/training/test_preemption.py"
_LAYOUT = "tests/models/test_layout.py"
FAULTS = (
    Fault(
        TRANSFORMERS, "5.24.0", "gradient accumulation multiplies the loss| of ResNet, EfficientNet, Swinv2 and 32 more",
        "the loss is computed outside the model, over all rows of the effective batch",
        (_EQUIVALENCE,),
        lambda recipe: _accumulates(recipe) and _is_of_hub(recipe) and _is_of_images(recipe),
        "https://github.com/huggingface/transformers/issues/47688",
        watch=f"{_EQUIVALENCE}::test_upstream_still_multiplies_the_loss_of_a_resnet_by_the_accumulation_steps",
    ),
    Fault(
        TRANSFORMERS, "5.24.0",
        "resume and load_best_model_at_end drop the encoder| of ViT, Swin, DeiT, DINOv2, BEiT...",
        "a checkpoint is loaded completely, or loading fails",
        (_EQUIVALENCE,),
        lambda recipe: _is_of_hub(recipe) and _is_of_images(recipe),
        "https://github.com/huggingface/transformers/issues/48805",
        watch=f"{_EQUIVALENCE}::test_upstream_still_drops_the_encoder_of_a_vit_when_it_loads_a_checkpoint",
    ),
    Fault(
        TORCH, "2.14.1",
        "gradient checkpointing updates the batch-norm statistics twice|, so the saved model is a different one",
        "the statistics are updated once, in the forward pass",
        (_EQUIVALENCE, "tests/methods/test_batch_norm.py"),
        _checkpoints_activations,
        "https://github.com/pytorch/pytorch/issues/96136",
        watch="tests/methods/test_batch_norm.py::test_upstream_still_updates_the_statistics_twice",
    ),
    Fault(
        TORCH, "2.14",
        "the weight gradient of a strided 1x1 convolution of few channels in channels_last crashes or is wrong| on a CPU",
        "such a layer keeps the plain layout",
        (_LAYOUT,),
        lambda recipe: recipe.model.channels_last,
        "https://github.com/uxlfoundation/oneDNN/issues/6035",
        watch=f"{_LAYOUT}::test_upstream_still_crashes_on_a_strided_1x1_convolution_of_few_channels",
    ),
    Fault(
        TORCH, "2.14",
        "the bf16 weight gradient of a strided convolution whose input is one pixel reads memory that nobody wrote (CPU)",
        "such an input gets a row and a column of zeros, which the stride passes over",
        (_LAYOUT,),
        lambda recipe: _may_be_bf16(recipe) and _is_of_images(recipe),
        watch=f"{_LAYOUT}::test_upstream_still_reads_memory_that_nobody_wrote_for_an_input_of_one_pixel",
    ),
    Fault(
        TORCH, "2.15.0", "bf16 products on a CPU without bf16 instructions are much slower than fp32|, and nobody says so",
        "`bf16: auto` takes bf16 where the device multiplies it natively; `bf16: true` elsewhere gives a warning",
        ("tests/machine/test_description.py",),
        _may_be_bf16,
        "https://github.com/pytorch/pytorch/issues/146508",
    ),
    Fault(
        TORCH, "2.15.0", "bf16 convolutions that are dilated or grouped are slow on a CPU|",
        "`model.kernels: auto` replaces strided and large depthwise convolutions in bf16",
        ("tests/methods/test_cpu_kernels.py",),
        lambda recipe: _may_be_bf16(recipe) and _is_of_images(recipe),
        "https://github.com/pytorch/pytorch/issues/183815",
    ),
    Fault(
        ACCELERATE, "1.15.0",
        "several processes that resume within an epoch start with the rows of the first epoch|",
        "the sampler is told the epoch by the Trainer",
        ("tests/methods/test_matrix.py",),
        None,
        "https://github.com/huggingface/accelerate/issues/2016",
    ),
    Fault(
        ACCELERATE, "1.15.0", "`accelerate launch --cpu --num_processes 2` starts one process, and does not say so",
        "the run warns that processes are missing",
        ("tests/runs/test_process.py",),
        None,
        watch="tests/runs/test_process.py::test_accelerate_starts_one_process_on_a_cpu_and_the_run_says_so",
    ),
    Fault(
        TRANSFORMERS, "5.23.0",
        "a damaged or half-written checkpoint is resumed, or crashes|, and old ones are deleted by the date of their folder, "
        "before the new one is on the disk",
        "a checkpoint counts with its manifest, written last; old ones are deleted afterwards, by step",
        ("tests/runs/test_manifest.py", "tests/training/test_checkpoint_faults.py"),
        None,
        "https://github.com/huggingface/transformers/issues/35525",
    ),
    Fault(
        TRANSFORMERS, "5.23.0", "`enable_jit_checkpoint` ends the training as if it were complete",
        "a signal saves a checkpoint, and the run is unfinished",
        (_PREEMPTION,),
        lambda recipe: bool(recipe.training.get("enable_jit_checkpoint")),
    ),
    Fault(
        TRANSFORMERS, "5.23.0",
        "a run that is resumed after its last step trains one more, if `max_steps` ends within an epoch",
        "it trains none",
        (_PREEMPTION,),
        lambda recipe: recipe.training.get("max_steps", -1) > 0,
    ),
    Fault(
        TRANSFORMERS, "5.23.0",
        "a run that is resumed between two lines of the log forgets the loss since the first one",
        "the sums are saved with the checkpoint",
        (_PREEMPTION,),
        None,
    ),
    Fault(
        TRANSFORMERS, "5.23.0", "a fine-tuned timm model has no image processor and no label names",
        "both are saved with the model",
        ("tests/doors/test_train.py",),
        _is_of_timm,
    ),
    Fault(
        TRANSFORMERS, "5.23.0", "weights from an fp16 file are trained in fp16, and training fails",
        "master weights are always fp32",
        (_EQUIVALENCE,),
        lambda recipe: recipe.model.pretrained,
    ),
    Fault(
        EVALUATE, "0.4.6", "`evaluate.load` needs the network",
        "`evaluate.Metric` is used without it, and computes with scikit-learn",
        ("tests/training/test_metrics.py",),
        None,
    ),
    Fault(
        TRANSFORMERS_JS, "4.3.2", "transformers.js refuses a timm model (`Unsupported model type: timm_wrapper`)",
        "`config.json` of an exported folder names a type that it knows",
        ("tests/compression/test_configuration.py",),
        lambda recipe: recipe.compress is not None and _is_of_timm(recipe),
    ),
    Fault(
        TRANSFORMERS, "5.23.0",
        "the tokenizer of a folder without its files is an empty one, which reads every word as unknown",
        "it is refused",
        ("tests/models/test_text.py",),
        lambda recipe: recipe.model.task == TEXT,
    ),
)  # fmt: skip
