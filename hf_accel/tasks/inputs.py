"""What the training of a run asks of the inputs of its task, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_accel.data.splits import ImageSplit
    from hf_accel.inputs.batches import ImageBatches, TransformedBatches
    from hf_accel.inputs.preprocessing import Preprocessing


class TaskInputs(Protocol):
    """The path of rows from a split to the model; `ImageInputs` is that of images."""

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def notes(self) -> list[str]: ...

    def train_batches(self, split: ImageSplit) -> ImageBatches | TransformedBatches: ...

    def scored_batches(self, split: ImageSplit) -> ImageBatches: ...

    def train_transform(self) -> Callable[[dict[str, Any]], dict[str, Any]] | None: ...

    def eval_transform(self) -> Callable[[dict[str, Any]], dict[str, Any]]: ...

    def scoring_model(self) -> Callable[[nn.Module], Callable[..., Any]] | None: ...

    def flops_of_row(self, batch: dict[str, Any]) -> int: ...

    def example(self, model: PreTrainedModel) -> dict[str, Tensor]: ...

    def smallest_batch(self, model: PreTrainedModel, rows: int) -> dict[str, Tensor]: ...
