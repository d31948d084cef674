"""The operators of a step one by one: seconds, bytes and floating-point operations of each kind.

They are timed where PyTorch dispatches them, not by torch.profiler: its own bookkeeping takes memory while a step runs, and
on a CPU the kernel then hands out fresh pages for large tensors, which makes operators on them look slow that are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

FLOOR_CALLS = 200
NOT_TOUCHED = ("empty", "new_empty", "empty_like", "empty_strided")  # memory that is reserved and not written
GROUPS = {  # parts of the names of operators -> kind, the first that fits
    "convolution": ("convolution",),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention"),
    "normalisation": ("batch_norm", "layer_norm", "group_norm", "rms_norm"),
    "matrix product": ("mm", "matmul", "linear"),
    "optimizer": ("_fused_", "_foreach_", "addcmul_", "addcdiv_", "lerp_"),
    "pooling": ("pool",),
    "conversion and copies": ("_to_copy", "copy_", "clone", "cat", "index_select", "embedding", "zeros", "fill_", "zero_"),
    "softmax and loss": ("softmax", "nll_loss", "cross_entropy"),
}  # fmt: skip
OTHER_GROUP = "elementwise and other"


@dataclass
class Operator:
    """All calls of one operator in a step.

    Attributes:
        name: PyTorch's, such as "convolution_backward".
        dtype: of its first tensor of floating-point numbers, such as "bfloat16".
        moved_bytes: of its tensors, each read or written once.
        is_compute: whether the matrix peak allows less speed than the copy bandwidth does; None: the peaks are not known.
        traced_seconds: what torch.profiler says; None: it was not asked.
    """

    name: str
    dtype: str
    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    moved_bytes: int = 0
    compute_seconds: float = 0.0  # in calls that the matrix peak limits
    traced_seconds: float | None = None

    @property
    def group(self) -> str:
        return group_of(self.name)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "group": self.group}


def group_of(name: str) -> str:
    """The kind of an operator.

    >>> group_of("convolution_backward"), group_of("relu_")
    ('convolution', 'elementwise and other')
    """
    return next((kind for kind, parts in GROUPS.items() if any(part in name for part in parts)), OTHER_GROUP)


class OperatorTimer(TorchDispatchMode):
    """Times every operator that is dispatched within, forward and backward; waits for a GPU after each.

    Args:
        device: of the model.
        matrix_flops: FLOP/s of the matrix peak by dtype; {} where it is not known.
        bandwidth: bytes/s of a copy; None where it is not known.
    """

    def __init__(self, device: torch.device, matrix_flops: dict[str, float], bandwidth: float | None) -> None:
        super().__init__()
        self.device, self.matrix_flops, self.bandwidth = device, matrix_flops, bandwidth
        self.found: dict[tuple[str, str], Operator] = {}
        self.floor = 0.0

    def measure_floor(self) -> None:
        """What the smallest operator takes: the part of each call that is not work of the device."""
        small = torch.zeros(1, device=self.device)
        seconds = sorted(self._seconds_of(lambda: small.add_(1))[1] for _ in range(FLOOR_CALLS))
        self.floor = seconds[len(seconds) // 2]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out, seconds = self._seconds_of(lambda: func(*args, **kwargs))
        if not func.is_view:
            self._add(func, max(0.0, seconds - self.floor), args, kwargs, out)
        return out

    def _seconds_of(self, call: Callable[[], Any]) -> tuple[Any, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        out = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return out, time.perf_counter() - start

    def _add(self, func: Any, seconds: float, args: Any, kwargs: Any, out: Any) -> None:
        packet = func._overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        dtype = next((str(t.dtype) for t in (*tensors, *results) if t.is_floating_point()), "torch.int64")
        dtype = dtype.removeprefix("torch.")
        moved = 0 if packet.__name__ in NOT_TOUCHED else sum(_bytes_of(t) for t in (*tensors, *results))
        flops = flops_of(packet, args, kwargs, out)
        operator = self.found.setdefault((packet.__name__, dtype), Operator(packet.__name__, dtype))
        operator.calls += 1
        operator.seconds += seconds
        operator.moved_bytes += moved
        operator.flops += flops
        if self._is_compute(flops, moved, dtype):
            operator.compute_seconds += seconds

    def _is_compute(self, flops: int, moved: int, dtype: str) -> bool:
        """Whether the matrix peak, and not the copy bandwidth, sets the limit of a call."""
        peak = self.matrix_flops.get("float32" if dtype == "float32" else "bfloat16")
        if peak is None or self.bandwidth is None:
            return flops > 0
        return flops / peak >= moved / self.bandwidth

    def operators(self) -> list[Operator]:
        """The most expensive first."""
        return sorted(self.found.values(), key=lambda operator: -operator.seconds)


def _bytes_of(tensor: Tensor) -> int:
    """Bytes of the elements that a tensor has of its own: an expanded dimension is read from a cache."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def flops_of(packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Floating-point operations of a call by PyTorch's formulas, which know no attention on a CPU; others have none.

    Its formula of a convolution's backward pass takes the weight gradient of a grouped one for that of a whole one.
    """
    if packet.__name__ == "convolution_backward":
        gradient, inputs, weight = args[:3]
        is_transposed, needed = args[7], args[10]  # needed: the gradients of input, weight and bias
        return 2 * (inputs if is_transposed else gradient).numel() * weight[0].numel() * sum(needed[:2])
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if "scaled_dot_product" not in packet.__name__:
        return 0
    is_backward = "backward" in packet.__name__
    query, key = (args[1], args[2]) if is_backward else (args[0], args[1])
    products = query.shape[0] * query.shape[1] * query.shape[-2] * key.shape[-2] * query.shape[-1]
    return (10 if is_backward else 4) * products  # two products forward, five backward


def totals(operators: Iterable[Operator]) -> dict[str, float]:
    """Sums over operators: seconds, compute_seconds, flops, moved_bytes."""
    rows = list(operators)
    return {
        name: sum(getattr(row, name) for row in rows) for name in ("seconds", "compute_seconds", "flops", "moved_bytes")
    }
