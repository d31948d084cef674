"""Figures as text, for the terminal table, comparisons and the model card.

Every function takes None, and a figure that is not finite, as "not measured" and gives a dash: a missing figure must
never read as 0.
"""

import math

MISSING = "-"


def _is_missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def format_count(value: int | None) -> str:
    """A whole number with thousands separated: 1797 -> '1,797'."""
    return MISSING if _is_missing(value) else f"{value:,.0f}"


def format_quantity(value: float | None) -> str:
    """A measured figure with about three digits: 12345.6 -> '12,346', 31.42 -> '31.4', 1.234 -> '1.23'."""
    if _is_missing(value):
        return MISSING
    # The thresholds are where rounding adds a digit: 99.96 is '100', not '100.0'.
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def format_score(value: float | None) -> str:
    """A score in [0, 1], or a loss, with four decimals: 0.97778 -> '0.9778'."""
    return MISSING if _is_missing(value) else f"{value:.4f}"


def format_percent(fraction: float | None) -> str:
    """A fraction as a percentage: 0.031 -> '3.1 %'."""
    return MISSING if _is_missing(fraction) else f"{100 * fraction:.1f} %"


def format_gib(gib: float | None) -> str:
    """An amount of memory, given in GiB (1024**3 bytes): 0.6138 -> '0.61 GiB'."""
    return MISSING if _is_missing(gib) else f"{gib:.2f} GiB"


def format_duration(seconds: float | None) -> str:
    """A time in the unit people would say it in.

    >>> [format_duration(s) for s in (0.0413, 12.34, 125, 3720)]
    ['41.3 ms', '12.3 s', '2 min 05 s', '1 h 02 min']
    """
    if _is_missing(seconds):
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
