"""Every random number of an image, from a counter hash of (seed, epoch, row, draw).

There is no generator state: an image gets the same numbers in any batch, worker, rank or resumed run, so those may
change without changing the training. The hash is splitmix64's finaliser, written for signed 64-bit integers because
torch and numpy then run the same lines.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Integers = TypeVar("Integers", np.ndarray, Tensor)


def random_bits(seed: int, epoch: Integers | int, row: Integers, draw: Integers | int) -> Integers:
    """Hash counters to 64 random bits; the integer arguments broadcast.

    Returns:
        int64 of the broadcast shape, uniform over all 2**64 values; a tensor on the device of `row` if that is one.
    """
    bits = _mix(row + _signed(0x9E3779B97F4A7C15 * (seed + 1)))
    bits = _mix(bits + _times(epoch, 0xD1B54A32D192ED03))
    return _mix(bits + _times(draw, 0x8CB92BA72F3D8DD7))


def uniform(seed: int, epoch: Integers | int, row: Integers, draw: Integers | int) -> Integers:
    """Random numbers in [0, 1) of the counters, which broadcast; float32, multiples of 2**-24.

    >>> uniform(0, 0, np.arange(4), 0).shape
    (4,)
    """
    bits = _shift_right(random_bits(seed, epoch, row, draw), 40)
    scale = 2.0**-24
    return bits.to(torch.float32) * scale if isinstance(bits, Tensor) else bits.astype(np.float32) * np.float32(scale)


def uniform_pairs(seed: int, epochs: Tensor, rows: Tensor, draws: Tensor) -> Tensor:
    """Two numbers in [0, 1) for each counter, from the halves of one hash: (..., n) -> (..., 2, n) float32."""
    bits = random_bits(seed, epochs, rows, draws)
    halves = torch.stack([_shift_right(bits, 40), _shift_right(bits, 16) & ((1 << 24) - 1)], -2)
    return halves.to(torch.float32) * 2.0**-24


def _mix(bits: Integers) -> Integers:
    bits = (bits ^ _shift_right(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Integers, places: int) -> Integers:
    return (bits >> places) & ((1 << (64 - places)) - 1)  # the mask clears the copies of the sign bit


def _times(value: Integers | int, factor: int) -> Integers | int:
    return _signed(value * factor) if isinstance(value, int) else value * _signed(factor)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
