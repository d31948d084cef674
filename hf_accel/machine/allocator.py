"""Memory that a training step has freed stays with the process, for the next step.

glibc takes every block above 32 MiB from the kernel and gives it back when it is freed. The activations of a step are such
blocks, so that each step on a CPU spends a sixth to a third of its time having the same pages zeroed again.
"""

from __future__ import annotations

import ctypes
import os
import sys

# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROWTH = 64 << 20  # bytes by which the heap grows


def keep_freed_memory() -> str | None:
    """Ask glibc to keep freed memory, for the rest of this process.

    The resident memory then stays at its peak. A user who has chosen an allocator, or its settings, by the environment
    keeps that choice.

    Returns:
        None when it was done, else why not.
    """
    chosen = [name for name in ("LD_PRELOAD", "GLIBC_TUNABLES") if os.environ.get(name)]
    chosen += [name for name in os.environ if name.startswith("MALLOC_")]
    if chosen:
        return f"{chosen[0]} is set"
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return "this is not glibc"
    done = [libc.mallopt(_M_MMAP_MAX, 0), libc.mallopt(_M_TRIM_THRESHOLD, -1), libc.mallopt(_M_TOP_PAD, _GROWTH)]
    return None if all(done) else "glibc refused"


def apply_keep_freed_memory(asked: bool) -> list[str]:
    """`training.keep_freed_memory` for this process; returns what a report says of it."""
    if not asked:
        return []
    refusal = keep_freed_memory()
    return [f"freed memory {'stays for the next step' if refusal is None else f'is given back: {refusal}'}"]
