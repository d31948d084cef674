"""From what was charged and timed to the facts of a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_accel.profiling.boundaries import WARM_UP
from hf_accel.profiling.clock import PhaseClock
from hf_accel.profiling.operators import Operator, totals
from hf_accel.profiling.phases import NETWORK, PHASES
from hf_accel.profiling.verdict import Facts
from hf_accel.profiling.whole_run import WholeRun, seconds_of_whole_run


def expected_seconds(whole: WholeRun, step: dict[str, float], clock: PhaseClock) -> dict[str, float]:
    """Seconds of the whole run by part."""
    used = clock.charged

    def each(name: str, what: str) -> float:
        count = getattr(used[name], what) if name in used else 0
        return clock.seconds(name) / count if count else 0.0

    once = {name: clock.seconds(name) for name, phase in PHASES.items() if phase.when == "once"}
    warm_up = clock.steps[:WARM_UP]  # compilation, autotuning, and the first batches of a loader
    once["warm-up"] = max(0.0, sum(sum(own.values()) for own in warm_up) - len(warm_up) * sum(step.values()))
    decode_row = each("decode", "rows") if whole.kept_rows else 0.0
    return seconds_of_whole_run(whole, step, once, decode_row, each("evaluation", "rows"), each("checkpoint", "calls"))


def cores_in_use(clock: PhaseClock, device: torch.device, cores: int) -> dict[str, float]:
    """`cores_used` and `cores` of `Facts`; {} where the network does not run on them."""
    used = [clock.charged[name] for name in NETWORK if name in clock.charged]
    seconds = sum(one.seconds for one in used)
    if device.type != "cpu" or not seconds:
        return {}
    return {"cores_used": sum(one.cpu_seconds for one in used) / seconds, "cores": cores}


def facts_of(
    seconds: dict[str, float], step: dict[str, float], operators: Sequence[dict[str, Any]], peaks: dict[str, Any] | None
) -> Facts:
    """What the verdict is made from."""
    times = {name: seconds[name] for name in ("input", "network", "optimizer", "loop", "saving", "evaluation", "once")}
    network = step.get("forward", 0.0) + step.get("backward", 0.0)
    if not operators or peaks is None or not network:
        return Facts(**times)
    found = [Operator(**{name: value for name, value in row.items() if name != "group"}) for row in operators]
    total = totals(found)
    compute, whole = total["compute_seconds"], total["seconds"]
    of_peak = sum(
        row.flops / peaks["matrix_flops_per_second"]["float32" if row.dtype == "float32" else "bfloat16"]
        for row in found
        if row.flops
    )
    moving = [row for row in found if row.compute_seconds < row.seconds / 2]
    moved, moving_seconds = sum(row.moved_bytes for row in moving), sum(row.seconds for row in moving)
    return Facts(
        **times,
        operator_share=whole / network,
        compute_share=compute / whole if whole else None,
        of_peak=of_peak / compute if compute else None,
        of_bandwidth=moved / moving_seconds / peaks["copy_bytes_per_second"] if moving_seconds else None,
    )
