"""What bounds a run: a pure function of measured facts.

The time of a run is divided among six causes. Input, optimizer and saving are phases. The network's time is divided by its
operators: what they do not account for is the host's (Python, hooks, dispatching), and each of them is limited by the matrix
peak or by the bandwidth of a copy, whichever allows less (the roofline model: Williams et al. 2009,
https://doi.org/10.1145/1498765.1498785). A cause bounds the run if it has a large share and is well ahead of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hf_accel.formatting import format_percent, format_quantity

Cause = Literal["input", "host", "compute", "memory bandwidth", "optimizer", "saving"]
Bound = Literal[Cause, "none stands out"]
CAUSES: tuple[Cause, ...] = ("input", "host", "compute", "memory bandwidth", "optimizer", "saving")

LEAST_SHARE = 0.4
LEAST_LEAD = 1.25  # over the next cause
BUSY = 0.6  # share of the cores below which the idle ones are mentioned
MENTIONED = 0.2  # share of evaluation, or of the start, from which it is said

IN_WORDS: dict[Cause, str] = {
    "input": "preparing batches: decoding, loading, copying, transforming",
    "host": "Python between the operators: hooks, callbacks, the Trainer's loop, dispatching small operators",
    "compute": "operators that the matrix peak limits, such as convolutions and matrix products",
    "memory bandwidth": "operators that move memory, such as batch norm, activations, additions and conversions",
    "optimizer": "clipping and the optimizer's step",
    "saving": "checkpoints",
}


@dataclass(frozen=True)
class Facts:
    """Seconds of a run, and what its network's operators say.

    Attributes:
        input, network, optimizer, loop, saving: seconds of the whole run.
        evaluation, once: seconds that the verdict leaves out and mentions.
        operator_share: seconds of the operators of a step / seconds of its forward and backward pass; None: not measured.
        compute_share: the part of the operators' seconds that the matrix peak limits.
        of_peak: FLOP/s of the operators that it limits / matrix peak.
        of_bandwidth: bytes/s of the others / bandwidth of a copy.
    """

    input: float
    network: float
    optimizer: float
    loop: float
    saving: float
    evaluation: float = 0.0
    once: float = 0.0
    operator_share: float | None = None
    compute_share: float | None = None
    of_peak: float | None = None
    of_bandwidth: float | None = None
    cores_used: float | None = None  # CPU time / wall time of the network; None: it runs elsewhere
    cores: float | None = None


@dataclass(frozen=True)
class Verdict:
    """
    Attributes:
        bound: what bounds the run.
        shares: of each cause, of the time that they have together, the largest first; they sum to 1.
        sentence: the same for people.
        remarks: on what the shares leave out.
    """

    bound: Bound
    shares: dict[Cause, float]
    sentence: str
    remarks: list[str]


def verdict(facts: Facts) -> Verdict:
    """What bounds a run.

    >>> verdict(Facts(input=8, network=1, optimizer=0.5, loop=0.1, saving=0)).bound
    'input'
    """
    seconds = seconds_by_cause(facts)
    total = sum(seconds.values())
    if total <= 0:
        return Verdict("none stands out", {}, "Nothing was measured.", [])
    shares = {cause: seconds[cause] / total for cause in sorted(CAUSES, key=lambda cause: -seconds[cause])}
    (first, largest), (second, next_one), *_ = shares.items()
    if largest >= LEAST_SHARE and largest >= LEAST_LEAD * next_one:
        return Verdict(first, shares, _sentence(first, shares, facts), _remarks(facts, total))
    words = f"None stands out: {first} has {format_percent(largest)} of the time, {second} {format_percent(next_one)}."
    return Verdict("none stands out", shares, words, _remarks(facts, total))


def seconds_by_cause(facts: Facts) -> dict[Cause, float]:
    """The network without known operators counts as compute."""
    operators = facts.network * min(1.0, 1.0 if facts.operator_share is None else facts.operator_share)
    compute = operators * (1.0 if facts.compute_share is None else facts.compute_share)
    return {
        "input": facts.input,
        "host": facts.network - operators + facts.loop,
        "compute": compute,
        "memory bandwidth": operators - compute,
        "optimizer": facts.optimizer,
        "saving": facts.saving,
    }


def _sentence(cause: Cause, shares: dict[Cause, float], facts: Facts) -> str:
    rate = {
        "compute": (facts.of_peak, "matrix peak"),
        "memory bandwidth": (facts.of_bandwidth, "bandwidth of a copy"),
    }.get(cause, (None, ""))
    reached = "" if rate[0] is None else f", at {format_percent(rate[0])} of this machine's {rate[1]}"
    is_bound = (
        "The run is bound by memory bandwidth" if cause == "memory bandwidth" else f"The run is bound by {_noun(cause)}"
    )
    return f"{is_bound}: {format_percent(shares[cause])} of its time goes into {IN_WORDS[cause]}{reached}."


def _noun(cause: Cause) -> str:
    return {"input": "its input", "host": "the host", "optimizer": "its optimizer"}.get(cause, cause)


def _remarks(facts: Facts, total: float) -> list[str]:
    whole = total + facts.evaluation + facts.once
    found = [
        (facts.evaluation, "Evaluation takes {} of the whole run: evaluate less often, or on fewer rows."),
        (facts.once, "Starting and preparing take {} of the whole run, which is short."),
    ]
    remarks = [text.format(format_percent(seconds / whole)) for seconds, text in found if seconds / whole >= MENTIONED]
    if facts.cores_used is not None and facts.cores is not None and facts.cores_used < BUSY * facts.cores:
        remarks.append(
            f"The network keeps {format_quantity(facts.cores_used)} of {facts.cores:g} cores busy: look at OMP_NUM_THREADS, and "
            "at other programs on this machine."
        )
    return remarks
