"""Figures as text, for the terminal table, the pages, comparisons and the model card.

Every function takes None, and a figure that is not finite, as "not measured" and gives a dash: a missing figure must
never read as 0.
"""

import math
from typing import Any, TypeGuard

MISSING = "-"
UNITS = (("TiB", 2**40, 2), ("GiB", 2**30, 2), ("MiB", 2**20, 1), ("KiB", 2**10, 1))  # name, bytes, decimals


def _is_measured(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def format_count(value: float | None) -> str:
    """A whole number with thousands separated: 1797 -> '1,797'."""
    return f"{value:,.0f}" if _is_measured(value) else MISSING


def format_epochs(number: float) -> str:
    """How long a run is.

    >>> format_epochs(1.0), format_epochs(2.5)
    ('1 epoch', '2.5 epochs')
    """
    return "1 epoch" if number == 1 else f"{number:g} epochs"


def format_quantity(value: float | None) -> str:
    """A measured figure with about three digits: 12345.6 -> '12,346', 31.42 -> '31.4', 1.234 -> '1.23'."""
    if not _is_measured(value):
        return MISSING
    # The thresholds are where rounding adds a digit: 99.96 is '100', not '100.0'.
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def format_million(count: float | None) -> str:
    """A number of parameters: 272474 -> '0.27 M', 85800194 -> '85.8 M'."""
    return f"{format_quantity(count / 1e6)} M" if _is_measured(count) else MISSING


def format_flops(count: float | None) -> str:
    """A number of floating-point operations: 41_000_000 -> '41.0 M', 4.1e9 -> '4.10 G'."""
    if not _is_measured(count):
        return MISSING
    return f"{format_quantity(count / 1e9)} G" if count >= 0.5e9 else f"{format_quantity(count / 1e6)} M"


def format_score(value: float | None) -> str:
    """A score in [0, 1], or a loss, with four decimals: 0.97778 -> '0.9778'."""
    return f"{value:.4f}" if _is_measured(value) else MISSING


def format_percent(fraction: float | None) -> str:
    """A fraction as a percentage: 0.031 -> '3.1 %'."""
    return f"{100 * fraction:.1f} %" if _is_measured(fraction) else MISSING


def format_accuracy(fraction: float | None) -> str:
    """A percentage with two decimals, as published tables have: 0.9231 -> '92.31 %'."""
    return f"{100 * fraction:.2f} %" if _is_measured(fraction) else MISSING


def format_bytes(count: float | None) -> str:
    """An amount of memory or storage, in the largest binary unit of which there is at least an eighth.

    >>> [format_bytes(count) for count in (100, 9216, 2**27, 3 * 2**30)]
    ['100 B', '9.0 KiB', '0.12 GiB', '3.00 GiB']
    """
    if not _is_measured(count):
        return MISSING
    for name, size, decimals in UNITS:
        if count >= size / 8:
            return f"{count / size:.{decimals}f} {name}"
    return f"{count:.0f} B"


def format_gib(gib: float | None) -> str:
    """`format_bytes` of a figure that is in GiB (1024**3 bytes): 0.6138 -> '0.61 GiB'."""
    return format_bytes(gib * 2**30) if _is_measured(gib) else MISSING


def format_energy(joules: float | None) -> str:
    """Joules in the unit of an electricity bill: 7200000 -> '2.00 kWh', 36000 -> '10.0 Wh'."""
    if not _is_measured(joules):
        return MISSING
    hours = joules / 3600
    return f"{format_quantity(hours / 1000)} kWh" if hours >= 1000 else f"{format_quantity(hours)} Wh"


def format_duration(seconds: float | None) -> str:
    """A time in the unit people would say it in.

    >>> [format_duration(s) for s in (0.0413, 12.34, 125, 3720)]
    ['41.3 ms', '12.3 s', '2 min 05 s', '1 h 02 min']
    """
    if not _is_measured(seconds):
        return MISSING
    if seconds < 0.99995:
        return f"{1000 * seconds:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def device_text(environment: dict[str, Any]) -> str:
    """The device as a person would name it, from `environment.describe_environment()` as a report keeps it."""
    device = environment.get("device")
    if device == "cpu":
        return f"CPU {environment.get('cpu') or MISSING}, {format_count(environment.get('cores'))} cores"
    if device and environment.get("driver"):
        return f"{device}, driver {environment['driver']}, CUDA {environment.get('cuda') or MISSING}"
    return device or "an unknown device"
