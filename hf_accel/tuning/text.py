"""A search as text: the terminal and Markdown, and the sentences of its page."""

from __future__ import annotations

from typing import Any

from hf_accel.config.yaml_text import flow_yaml
from hf_accel.formatting import (
    MISSING,
    device_text,
    format_duration,
    format_energy,
    format_gib,
    format_quantity,
)
from hf_accel.tables import format_table
from hf_accel.tuning.result import Ratio, Tuning

HEADINGS = ("technique", "verdict", "gain", "contribution", "reason")
EXPECTED_HEADINGS = ("whole run", "recipe", "tuned")
IMPROVED = {"time": "A run is faster", "cost": "A run is cheaper", "memory": "Peak memory is lower"}
PROMISING = 1.1  # gain of a single trial
COSTS = {"time": "time", "cost": "time", "memory": "peak memory"}


def summary(tuning: Tuning) -> list[str]:
    """What the search found, in sentences that can be quoted."""
    sentences = [_proposal(tuning)]
    before, after = tuning.before, tuning.after
    if tuning.patch and before is not None and after is not None:
        sentences.append(
            f"Expected time of the whole run: {format_duration(after.seconds)}, and {format_duration(before.seconds)} as the "
            "recipe stands."
        )
    elif before is not None:
        sentences.append(f"Expected time of the whole run: {format_duration(before.seconds)}.")
    if tuning.accuracy_difference is not None and tuning.patch:
        mean, low, high = tuning.accuracy_difference
        interval = "" if low is None or high is None else f" (95 %: {100 * low:+.2f} to {100 * high:+.2f})"
        sentences.append(
            f"An allowed technique changes the result: after the steps of the confirmation, test accuracy differs by "
            f"{100 * (mean or 0.0):+.2f} points{interval}; a whole run of each says more."
        )
    return sentences


def _proposal(tuning: Tuning) -> str:
    if tuning.patch:
        assert tuning.confirmed is not None, "nothing is proposed unconfirmed"
        names = ", ".join(f"`{name}`" for name in tuning.accepted)
        return f"Proposed: {names}. {IMPROVED[tuning.objective]} by a factor of {ratio_text(tuning.confirmed)}."
    if tuning.confirmed is not None:
        names = ", ".join(f"`{name}`" for name in tuning.accepted)
        return (
            f"Keep the recipe: {names} looked better in trials, and whole runs did not confirm it "
            f"({ratio_text(tuning.confirmed)})."
        )
    if tuning.accepted:
        names = ", ".join(f"`{name}`" for name in tuning.accepted)
        return f"Keep the recipe: {names} looked better in trials, and was not confirmed."
    promising = [
        f"`{one.name}`" for one in tuning.techniques if one.word == "not tried" and (one.gain or 0) > PROMISING
    ]
    if promising:
        return f"Keep the recipe: the budget ended before {', '.join(promising)} could be confirmed; a larger one may show more."
    return "Keep the recipe: nothing that was tried is better."


def ratio_text(ratio: Ratio) -> str:
    """'1.94 (1.90 to 1.98)'."""
    interval = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{ratio.ratio:.2f}{interval}"


def gain_text(gain: float | None) -> str:
    return MISSING if gain is None else f"{gain:.2f}x"


def technique_rows(tuning: Tuning) -> list[list[str]]:
    """A list of texts per technique, accepted ones first."""
    order = {"accepted": 0, "no gain": 1, "rejected": 2, "not tried": 3}
    tried = sorted(tuning.techniques, key=lambda one: (order[one.word], -(one.gain or 0)))
    rows = [[one.name, one.word, gain_text(one.gain), gain_text(one.contribution), one.reason] for one in tried]
    return rows + [[one["name"], "left out", MISSING, MISSING, one["reason"]] for one in tuning.left_out]


def expected_rows(tuning: Tuning) -> list[list[str]]:
    """The parts of the whole run, of the recipe and of the tuned recipe."""
    before, after = tuning.before, tuning.after if tuning.patch else None
    if before is None:
        return []
    parts: list[tuple[str, Any]] = [
        ("time", lambda one: format_duration(one.seconds)),
        ("of it starting and saving", lambda one: format_duration(one.start)),
        ("decoding the images that are kept", lambda one: format_duration(one.fill)),
        ("computing features", lambda one: format_duration(one.features)),
        ("compilation", lambda one: format_duration(one.compiling)),
        ("optimisation", lambda one: format_duration(one.steps)),
        ("scoring", lambda one: format_duration(one.scoring)),
        ("peak memory", lambda one: format_gib(one.peak_gib)),
        ("memory left", lambda one: format_gib(_left(tuning, one.peak_gib))),
        ("energy", lambda one: format_energy(one.joules)),
    ]
    if tuning.price_per_hour is not None:
        price = tuning.price_per_hour
        parts.append(("price", lambda one: f"{one.price(price):.2f}"))
    rows = [[name, write(before), MISSING if after is None else write(after)] for name, write in parts]
    zero = format_duration(0.0)
    return [row for row in rows if not set(row[1:]) <= {MISSING, zero}]


def _left(tuning: Tuning, peak: float | None) -> float | None:
    return None if peak is None or tuning.available_gib is None else max(0.0, tuning.available_gib - peak)


def remarks(tuning: Tuning) -> list[str]:
    """The facts without which the tables cannot be read."""
    environment = tuning.environment
    versions = ", ".join(f"{name} {environment.get(name)}" for name in ("torch", "transformers", "timm", "hf_accel"))
    what = COSTS[tuning.objective]
    lines = [
        f"Gain: {what} of the run without the technique over {what} with it, in trials of a few steps; contribution: the same "
        "when the technique is taken away from the result. Warm-up steps count in neither, compilation counts as much as "
        "the whole run needs.",
        f"{tuning.trials} trial{'' if tuning.trials == 1 else 's'}, {format_duration(tuning.spent_seconds)} of "
        f"{format_duration(tuning.budget_seconds)}.",
        f"Measured on {device_text(environment)}; {versions}.",
    ]
    if tuning.stopped:
        lines.append(
            "The budget ended before the search did: the same command with a larger --budget continues from here."
        )
    rates = tuning.images_per_second
    if rates.get("recipe") and rates.get("tuned"):
        lines.append(
            f"Images/s of the confirmed runs: {format_quantity(rates['tuned'])}, and {format_quantity(rates['recipe'])} of "
            "the recipe as it stands."
        )
    return [*lines, *tuning.notes]


def terminal_text(tuning: Tuning) -> str:
    """The result for people."""
    parts = ["\n".join(summary(tuning)), format_table(HEADINGS, technique_rows(tuning), align="llrrl", indent=2)]
    expected = expected_rows(tuning)
    parts += [format_table(EXPECTED_HEADINGS, expected, indent=2)] if expected else []
    parts += [f"settings: {flow_yaml(tuning.patch)}"] if tuning.patch else []
    return "\n\n".join([*parts, "\n".join(remarks(tuning))]).replace("`", "")


def markdown(tuning: Tuning) -> str:
    parts = [f"# {title(tuning)}", "\n".join(f"- {line}" for line in summary(tuning))]
    parts += [f"```yaml\n{flow_yaml(tuning.patch)}\n```"] if tuning.patch else []
    parts.append(format_table(HEADINGS, technique_rows(tuning), "markdown", align="llrrl"))
    expected = expected_rows(tuning)
    parts += [format_table(EXPECTED_HEADINGS, expected, "markdown")] if expected else []
    parts.append("\n".join(f"- {line}" for line in remarks(tuning)))
    return "\n\n".join(parts) + "\n"


def title(tuning: Tuning) -> str:
    variant = "" if tuning.variant == "default" else f", {tuning.variant}"
    return f"{tuning.recipe}{variant}: tuned for {tuning.objective}"


def header_lines(tuning: Tuning) -> list[str]:
    """The comment of a recipe file that `--write` leaves."""
    device = device_text(tuning.environment)
    lines = [f"{tuning.recipe}, tuned for {tuning.objective} by hf-accel tune on {device}."]
    return [*lines, *(line.replace("`", "") for line in summary(tuning))]
