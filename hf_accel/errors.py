"""The exceptions that the commands print as one message, and end with exit code 2, 1, or 128 + the number of a signal."""

import difflib
import errno
import signal
import traceback
from typing import Any

_RESUMES = "What was saved before stays, and an unfinished run is resumed by the same command."
_SMALLER = (
    "Make batches smaller (--per_device_train_batch_size, --per_device_eval_batch_size; predict: --batch_size), with "
    "--gradient_accumulation_steps where the step should stay as it is (--auto_find_batch_size true does both when it must), set "
    "--data.cache disk, or end other programs"
)
# Signs in the text of an error: libraries wrap the system's errors in errors of their own.
_DISK_FULL = (
    *("No space left", "os error 28", "Disk quota exceeded", "os error 122", "File too large", "os error 27"),
    *("inline_container.cc", "iostream error"),  # torch.save, which does not say why it could not write
)
_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory", "out of memory", "os error 12)")
_PROCESSES = ("can't start new thread", "Resource temporarily unavailable")
_CONNECTION = ("gloo", "NCCL", "ncclSystemError", "ncclRemoteError", "ProcessGroup")

_NAME_SHOWN = 60


class UserError(ValueError):
    """The input is wrong and the message says where, what was got, what was expected and how to fix it."""


class RunError(RuntimeError):
    """A run failed, on every process; the message says where, why, what is kept and what to try."""


class Stopped(KeyboardInterrupt):
    """A signal ends a command, which exits with 128 + its number: 130 after ^C.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class Interrupted(Stopped):
    """As `Stopped`; the message says what is kept and how to continue."""


def own_words(error: UserError | RunError) -> str:
    """The message alone; a DataLoader puts the traceback of its process before it."""
    return str(error).rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def machine_failure(error: BaseException) -> str | None:
    """What a person can do about an error that comes from the machine and not from the code, in one message.

    Returns:
        None for every other error: its traceback is worth reading.
    """
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if "DataLoader worker (pid" in text or _is_of_loader(error):
        return _worker_failure(text)
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)) or _has(
        text, _DISK_FULL
    ):
        return f"no space left on the device. {_RESUMES} Free some, or choose another --output_dir."
    if _has(text, _PROCESSES) or (isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN):
        return (
            f"no further thread or process could be started ({_first_sentence(text)}). {_RESUMES} Raise the limit (ulimit -u; "
            "Docker: --pids-limit), end other programs, or set a smaller --dataloader_num_workers and OMP_NUM_THREADS."
        )
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or _has(text, _MEMORY):
        return f"memory ran out ({_first_sentence(text) or kind}). {_RESUMES} {_SMALLER}."
    if isinstance(error, OSError) and error.errno is not None:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}. {_RESUMES}"
    if is_lost_connection(error):
        return (
            f"the processes of this run lost each other ({_first_sentence(text)}): see what the others say. {_RESUMES}"
        )
    if kind == "AcceleratorError":
        return (
            f"the device failed ({_first_sentence(text)}). {_RESUMES} If it fails again at the same step, "
            "CUDA_LAUNCH_BLOCKING=1 shows the operation."
        )
    return None


def is_lost_connection(error: BaseException) -> bool:
    """Whether the error only says that another process of the run is gone."""
    return type(error).__name__.startswith("Dist") or _has(str(error), _CONNECTION)


def name_too_long(error: BaseException) -> str | None:
    """The message about a name that no file can have; None for every other error.

    Output folders are checked before a run writes to them, so such a name is one that the user gave.
    """
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    name = str(error.filename or "a name")
    name = name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…"
    return (
        f"{name}: is too long for the name of a file, expected at most 255 bytes in each part. Check the command line."
    )


def _is_of_loader(error: BaseException) -> bool:
    """Whether the connection to a process of a DataLoader broke before anybody knew that the process is gone."""
    if not isinstance(error, ConnectionError | EOFError):
        return False
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(file.endswith("torch/utils/data/dataloader.py") for file in files)


def _worker_failure(text: str) -> str:
    """A process of the DataLoader is gone: the system killed it, or it crashed. Torch does not always know by what."""
    how = text.partition("killed by signal: ")[2].partition(".")[0]  # Killed, Bus error, Segmentation fault
    return (
        f"a data-loading process {f'was ended by the system ({how})' if how else 'is gone'}, as happens when memory or shared "
        f"memory runs out. {_RESUMES} Set a smaller --dataloader_num_workers (0: none) or --data.cache disk, or make "
        "/dev/shm larger (Docker: --shm-size 8g)."
    )


def _has(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)


def _first_sentence(text: str, longest: int = 160) -> str:
    sentence = text.split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= longest else sentence[: longest - 1] + "…"


def did_you_mean(name: str, known: list[str] | dict[str, Any]) -> str:
    """The sentence that ends a message about an unknown name."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(sorted(known))}." if len(known) <= 30 else "No name is close to it."
