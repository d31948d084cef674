"""What a run says when a step that is not finite ends it."""

from __future__ import annotations

from transformers import TrainingArguments

from hf_accel.methods.finite import BadStep
from hf_accel.runs.folder import RunFolder


def failed_at(bad: BadStep, args: TrainingArguments, max_steps: int) -> str:
    """The message for a run that a bad step ends: where, why, what is kept and what to try."""
    assert args.output_dir is not None  # training_arguments sets it
    checkpoint = RunFolder(args.output_dir).checkpoints.last()
    kept = "no checkpoint was saved before" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    tips = [f"a training.learning_rate below {args.learning_rate:g}"]
    if args.fp16:
        tips.append("training.bf16: true instead of fp16")
    if args.max_grad_norm > 0:
        tips.append(f"a training.max_grad_norm below {args.max_grad_norm:g}")
    else:
        tips.append("training.max_grad_norm: 1, which clips gradients")
    fresh = "" if checkpoint is None else ", with --overwrite to start from scratch"
    return (
        f"step {bad.step} of {max_steps} (learning rate {bad.learning_rate:g}): {bad.reason}. The run ends, nothing of this "
        f"step is saved, and {kept}. Try {', '.join(tips[:-1])} or {tips[-1]}{fresh}."
    )
