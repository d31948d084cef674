"""Fine-tune image classifiers with the Hugging Face Trainer and measure which acceleration pays on this machine.

The three public names are imported on first use, because torch and transformers take seconds to import and `--help`
must not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RunReport", "build_trainer", "load_recipe"]

if TYPE_CHECKING:
    from hf_accel.recipe import load_recipe
    from hf_accel.report import RunReport
    from hf_accel.trainer import build_trainer

_HOMES = {"RunReport": "hf_accel.report", "build_trainer": "hf_accel.trainer", "load_recipe": "hf_accel.recipe"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
