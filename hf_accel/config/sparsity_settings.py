"""`training.sparsity`. The method is methods/sparsity.py; its settings are checked without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from hf_accel.config.sections import Number, Whole

ENDS = {"constant": None, "polynomial": 0.75, "one_cycle": 1.0}  # the default of `end`
FIRST, LAST = "first", "last"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SparsitySettings:
    """Weights of small magnitude become zero while the model trains. One of final and pattern must be given."""

    final: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Share of the prunable weights that is zero in the saved model.", examples=[0.6]
    )
    pattern: Literal["1:2", "1:4", "2:4", "2:8", "4:8"] | None = Field(
        default=None,
        description='In place of final: "N:M" keeps N of each M consecutive input weights (input channels of a convolution).',
        examples=["2:4"],
    )
    schedule: Literal["constant", "polynomial", "one_cycle"] = Field(
        default="polynomial",
        description="constant: all at once, at begin; polynomial (cubic) and one_cycle (cosine): gradually, from begin to end.",
    )
    begin: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the training steps after which pruning begins."
    )
    end: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Share of the training steps after which the final sparsity is reached; null: 0.75 with polynomial, 1 "
        "with one_cycle.",
    )
    updates: Annotated[StrictInt, Field(ge=1, le=10_000), Whole] = Field(
        default=100, description="How often the weights are chosen again between begin and end."
    )
    scope: Literal["global", "layer"] = Field(
        default="global",
        description="global: the smallest weights of all layers together; layer: the same share of each layer.",
    )
    exclude: list[StrictStr] = Field(
        default_factory=lambda: [FIRST, LAST],
        description="Layers that stay dense: first (the first layer), last (the classifier), or names, which include the "
        "layers within.",
        examples=[["first", "last", "downsample"]],
    )

    @property
    def last_update(self) -> float:
        """Share of the training steps after which the sparsity is final."""
        end = ENDS[self.schedule] if self.end is None else self.end
        return self.begin if end is None or self.schedule == "constant" else end

    @property
    def share(self) -> float:
        """Share of the prunable weights that is zero at the end."""
        if self.pattern is None:
            assert self.final is not None, "the recipe was checked"
            return self.final
        kept, group = map(int, self.pattern.split(":"))
        return 1 - kept / group


def sparsity_problems(model: dict[str, Any], training: dict[str, Any]) -> list[str]:
    """Settings of `training.sparsity` that contradict each other or another section, as messages.

    Args:
        model, training: the sections of a merged recipe; a value of the wrong type is not judged here.
    """
    asked = training.get("sparsity")
    if not isinstance(asked, dict):
        return []
    problems, where = [], "training.sparsity"
    final, pattern = asked.get("final"), asked.get("pattern")
    if final is None and pattern is None:
        problems.append(f"{where} has neither final nor pattern. Set {where}.final, for example 0.6.")
    if final is not None and pattern is not None:
        problems.append(
            f"{where}.final is {final!r} and {where}.pattern is {pattern!r}, which sets the sparsity itself. Leave one out."
        )
    schedule = asked.get("schedule", "polynomial")
    if schedule == "constant":
        problems += [
            f"{where}.{name} has no effect with schedule: constant, which prunes once, at begin. Leave {name} out."
            for name in ("end", "updates")
            if asked.get(name) is not None
        ]
    else:
        begin, end = asked.get("begin", 0.0), asked.get("end")
        end = ENDS.get(schedule) if end is None and isinstance(schedule, str) else end
        if _is_number(begin) and _is_number(end) and begin >= end:
            problems.append(f"{where}.begin is {begin}, expected a number below {where}.end, which is {end}.")
    problems += [
        f"{where} cannot be combined with {setting}, {why}. Leave one out."
        for setting, value, why in (
            ("model.lora", model.get("lora"), "which changes weights only when the run ends"),
            (
                "training.gradual_unfreezing",
                training.get("gradual_unfreezing"),
                "which decides by step which layers learn",
            ),
        )
        if value is not None
    ]
    exclude = asked.get("exclude", [FIRST, LAST])
    if model.get("freeze") == "backbone" and isinstance(exclude, list) and LAST in exclude:
        problems.append(
            f"{where} has nothing to prune: model.freeze is backbone, and the classifier is excluded (last). Leave freeze or "
            "sparsity out."
        )
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
