"""Puts the timers of a clock at the boundaries of a Trainer's phases, and takes them off again.

The Trainer is the one of every run, unchanged: the functions that it calls at these boundaries are replaced for the time
of a profile. Decoding is timed where the images are decoded: in this process. What loader workers do is seen as the wait for
their batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import accelerate.data_loader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.inputs.batches import TransformedBatches
from hf_accel.inputs.cache import DecodedPixels
from hf_accel.inputs.prepared import PreparedBatches
from hf_accel.inputs.stored import StoredImages
from hf_accel.inputs.text import Tokenising
from hf_accel.profiling.clock import PhaseClock, timed

if TYPE_CHECKING:
    from hf_accel.training.trainer import ImageTrainer

WARM_UP = 3  # first steps, which are in the run and in no mean


class Boundary(NamedTuple):
    """A function that belongs to a phase: an attribute of an object, a class or a module."""

    owner: Any
    name: str
    phase: str
    rows: Callable[..., int] | None = None


def decoding() -> list[Boundary]:
    """Where images are decoded and texts tokenised."""
    return [
        Boundary(StoredImages, "fill", "decode", lambda stored, *_: len(stored)),
        Boundary(DecodedPixels, "batch", "decode", lambda _, rows: len(rows)),
        Boundary(PreparedBatches, "image", "decode", lambda *_: 1),
        Boundary(Tokenising, "__call__", "decode", lambda _, texts: len(texts)),
    ]


def of_trainer(trainer: ImageTrainer) -> list[Boundary]:
    """The boundaries within `train()`, those of fetching a batch and of the optimizer aside."""
    dataset = trainer.train_dataset
    found = [
        Boundary(trainer.measuring, "prepare", "prepare"),
        Boundary(accelerate.data_loader, "send_to_device", "copy"),
        Boundary(type(dataset), "complete", "transform"),
        Boundary(trainer, "compute_loss", "forward"),
        Boundary(trainer.accelerator, "backward", "backward"),
        Boundary(trainer, "_clip_grad_norm", "optimizer"),
        Boundary(trainer, "_get_grad_norm", "optimizer"),
        Boundary(trainer, "_evaluate", "evaluation", lambda *_, **__: len(cast(Sized, trainer.eval_dataset))),
        Boundary(trainer, "_save_checkpoint", "checkpoint"),
        Boundary(trainer, "_load_best_model", "reload"),
    ]
    if trainer.train_transform is not None:
        found.append(Boundary(trainer, "train_transform", "transform"))
    if isinstance(dataset, TransformedBatches) and trainer.args.dataloader_num_workers == 0:
        found.append(Boundary(dataset, "transform", "transform"))  # workers may get a pickled copy
    return found


@contextmanager
def timers(clock: PhaseClock, boundaries: list[Boundary]) -> Iterator[None]:
    """Charge the calls of these functions to their phases."""
    with ExitStack() as stack:
        for owner, name, phase, rows in boundaries:
            stack.enter_context(replaced(owner, name, timed(clock, phase, getattr(owner, name), rows)))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for a while; an inherited one is uncovered again."""
    is_own = name in vars(owner)
    before = vars(owner)[name] if is_own else None
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


class TurnSeconds(NamedTuple):
    """Seconds of neighbouring turns of steps, with and without timers."""

    with_timers: list[float]
    without: list[float]


class StepTimers(TrainerCallback):
    """Times the steps of a run: all of the warm-up, and then by turns with and without timers.

    Args:
        clock: is charged.
        trainer: its `get_batch_samples` begins a step.
        turn: steps of a turn; 0 times every step.
    """

    def __init__(self, clock: PhaseClock, trainer: ImageTrainer, turn: int) -> None:
        self.clock, self.trainer, self.turn = clock, trainer, turn
        self.rows = 0  # of the timed steps
        self.batch: dict[str, Any] | None = None  # of the last step
        self._fetch = trainer.get_batch_samples
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._turn_start: float | None = None
        self._is_timed = True
        self._is_preparing = self._in_optimizer = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Around `trainer.train()`."""
        self._is_preparing = self.clock.begin("prepare")
        with (
            timers(self.clock, of_trainer(self.trainer)),
            replaced(self.trainer, "get_batch_samples", self.get_batch_samples),
        ):
            self.trainer.add_callback(self)
            try:
                yield
            finally:
                self.trainer.remove_callback(self)
                self.clock.resume()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """A step begins."""
        self._begin(self.trainer.state.global_step)
        with self.clock.phase("load"):
            batches, num_items = self._fetch(*args, **kwargs)
        rows = sum(len(batch["labels"]) for batch in batches)
        self.rows += rows if self._is_timed else 0
        self.batch = dict(batches[-1])
        return batches, num_items

    def _begin(self, step: int) -> None:
        number = step - WARM_UP
        self._is_timed = not self.turn or number < 0 or (number // self.turn) % 2 == 0
        if self.turn and number >= 0 and number % self.turn == 0:
            self._turn_start = self.clock.gauges.read().wall
        if self._is_timed:
            self.clock.begin_step()
        else:
            self.clock.pause()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._is_preparing:
            self.clock.end()
            self._is_preparing = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._in_optimizer = self.clock.begin("optimizer")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._in_optimizer:
            self.clock.end()
        if self._is_timed:
            self.clock.end_step()
        done = state.global_step - WARM_UP
        if self.turn and done > 0 and done % self.turn == 0 and self._turn_start is not None:
            self._seconds[self._is_timed].append(self.clock.gauges.read().wall - self._turn_start)
            self._turn_start = None
        self.clock.resume()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._turn_start = None  # a turn with an evaluation in it says nothing

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._turn_start = None

    @property
    def turns(self) -> TurnSeconds:
        pairs = list(zip(self._seconds[True], self._seconds[False], strict=False))
        return TurnSeconds([timed for timed, _ in pairs], [plain for _, plain in pairs])


def steps_needed(counted: int, turn: int) -> int:
    """The steps of a run with so many timed steps after the warm-up."""
    return WARM_UP + (counted if not turn else 2 * turn * max(1, -(-counted // turn)))
