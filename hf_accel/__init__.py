"""Fine-tune image classifiers with the Hugging Face Trainer and measure which acceleration pays on this machine.

The three public names are imported on first use, because torch and transformers take seconds to import and `--help`
must not.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RunReport", "build_trainer", "load_recipe"]

if TYPE_CHECKING:
    from hf_accel.config.recipe import load_recipe
    from hf_accel.report.run_report import RunReport
    from hf_accel.training.build import build_trainer

_HOMES = {
    "RunReport": "hf_accel.report.run_report",
    "build_trainer": "hf_accel.training.build",
    "load_recipe": "hf_accel.config.recipe",
}

# `python hf_accel/train.py` puts this folder first on sys.path, where evaluate.py would hide the library of that name.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
