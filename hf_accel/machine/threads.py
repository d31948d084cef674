"""How many threads PyTorch's operations on the CPU take."""

from __future__ import annotations

import torch


def apply_cpu_threads(number: int | None) -> list[str]:
    """`training.cpu_threads` for this process; None leaves PyTorch's own choice. Returns what a report says of it.

    The processes of a DataLoader have one thread each, whatever is set here.
    """
    if number is None:
        return []
    torch.set_num_threads(number)
    return [f"operations on the CPU take {number} threads"]
