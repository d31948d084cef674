"""`training.lr_scheduler_type` and its `lr_scheduler_kwargs`, as far as the schedules are of this package.

The method is methods/schedules.py; the settings are checked without torch.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from hf_accel.config.sections import Number

_KNOWN_ONLY = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_KNOWN_ONLY)
class OneCycle:
    """`lr_scheduler_type: one_cycle`: up to `learning_rate` and down to nearly nothing, as torch's OneCycleLR."""

    pct_start: Annotated[Number, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Share of the steps in which the rate rises; null: warmup_steps, or 0.3 without any."
    )
    anneal_strategy: Literal["cos", "linear"] = Field(default="cos", description="The form of both slopes.")
    div_factor: Annotated[Number, Field(ge=1)] = Field(
        default=25.0, description="The first rate is learning_rate divided by this."
    )
    final_div_factor: Annotated[Number, Field(ge=1)] = Field(
        default=1e4, description="The last rate is the first one divided by this."
    )


@dataclass(frozen=True, config=_KNOWN_ONLY)
class Trapezoid:
    """`lr_scheduler_type: trapezoid`: warm-up over `warmup_steps`, then constant, then a decay."""

    decay_steps: Annotated[Number, Field(gt=0)] = Field(
        default=0.2, description="Steps of the decay; below 1, a share of all steps, as warmup_steps."
    )
    decay_type: Literal["linear", "cosine", "1-sqrt"] = Field(default="linear", description="The form of the decay.")
    min_lr_ratio: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.0, description="The last rate is learning_rate times this."
    )


Schedule = OneCycle | Trapezoid
SCHEDULES: dict[str, type[OneCycle] | type[Trapezoid]] = {"one_cycle": OneCycle, "trapezoid": Trapezoid}


def own_schedule(training: dict[str, Any]) -> Schedule | None:
    """The schedule of this package that `training:` asks for; None for upstream's. The values must have been checked."""
    kind = SCHEDULES.get(training.get("lr_scheduler_type", ""))
    return None if kind is None else kind(**schedule_arguments(training))


def schedule_arguments(training: dict[str, Any]) -> dict[str, Any]:
    """`lr_scheduler_kwargs`, which may be a mapping, JSON, or missing.

    Raises:
        ValueError: it is text, and not JSON.
    """
    given = training.get("lr_scheduler_kwargs") or {}
    return json.loads(given) if isinstance(given, str) else given
