"""A run that is told to stop saves a checkpoint first: ^C, a closed terminal, and the notice of a scheduler.

A signal that comes while the run trains is remembered. After the present step, or after the evaluation or the checkpoint that
is due there, the run is saved and ends with exit code 128 + the number of the signal; the same command resumes it. ^C after
that, and a signal that comes before or after the training, end the run at once: what is written then is written whole.

SLURM sends SIGTERM 30 s before it kills (`KillWait`), and with `--signal=USR1@120` SIGUSR1 120 s before the time limit.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_accel.cli import is_main_process
from hf_accel.errors import Stopped, is_lost_connection

if TYPE_CHECKING:
    import torch

# Windows has neither SIGHUP nor SIGUSR1.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class StopSignals:
    """Turns the signals that end a process into an exception, at once or at the end of a step.

    A signal that the process was started to ignore (`nohup`, a job in the background) stays ignored. Processes that this one
    forks, as a DataLoader does, leave the decision to it: a scheduler signals all processes of a job.

    Attributes:
        received: the number of the signal that asks the run to stop; None: none has.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._process = os.getpid()
        self._waits_for_step = mmap.mmap(-1, 1)  # shared with forked processes: 1 while this one trains
        self._agreed: int = 0
        self._pending: tuple[Any, torch.Tensor] | None = None  # the question to all processes, and their answer

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Handle the signals within; where this is not the main thread, Python cannot, and they do what they did."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in STOPPING}
            before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting_for_a_step(self) -> Iterator[None]:
        """Remember a signal that comes within, for whoever asks `agreed` after each step."""
        self._waits_for_step[0] = 1
        try:
            yield
        except Exception as error:
            if self.received is None or not is_lost_connection(error):
                raise
            # the launcher ends all processes of a run in which one has failed
        finally:
            self._waits_for_step[0] = 0
        if self.received is not None:  # no step followed it
            raise Stopped(_named(self.received), self.received)

    def agreed(self, device: torch.device) -> int | None:
        """The signal after which all processes stop now; every process calls this after the same steps.

        Several processes stop one call after the first of them was told to: the answer of the others, one number, is on its
        way while they compute.

        Args:
            device: on which the processes exchange tensors.
        """
        distributed = sys.modules["torch.distributed"]  # this module is imported before torch
        if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return self.received
        if self._agreed == 0:
            if self._pending is not None:
                work, answer = self._pending
                work.wait()
                self._agreed = int(answer.item())
            own = sys.modules["torch"].tensor(self.received or 0, device=device)
            self._pending = distributed.all_reduce(own, op=distributed.ReduceOp.MAX, async_op=True), own
        return self._agreed or None

    def _handle(self, number: int, frame: Any) -> None:
        waits = self._waits_for_step[0] == 1
        if os.getpid() != self._process:
            if not waits:  # the process that forked this one ends it
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if not waits or (self.received is not None and number == signal.SIGINT):
            raise Stopped(_named(number), number)
        if self.received is None:  # schedulers repeat themselves
            self.received = number
            _say(f"\n{_named(number)}: a checkpoint is saved after this step. ^C ends the run without it.\n")


def _named(number: int) -> str:
    return "^C" if number == signal.SIGINT else signal.Signals(number).name


def _say(text: str) -> None:
    """Write to stderr from a handler: what buffers the stream may be in the middle of a write."""
    if is_main_process():
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), text.encode())
