"""Fine-tune image classifiers with the Hugging Face Trainer and measure which acceleration pays on this machine.

The public names are imported on first use, because torch and transformers take seconds to import and `--help` must not.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Prediction", "RunReport", "build_trainer", "load_recipe", "predict", "report_on"]

if TYPE_CHECKING:
    from hf_accel.config.recipe import load_recipe
    from hf_accel.report.run_report import RunReport
    from hf_accel.training.build import build_trainer
    from hf_accel.training.finish import report_on
    from hf_accel.training.prediction import Prediction, predict

_HOMES = {
    "Prediction": "hf_accel.training.prediction",
    "RunReport": "hf_accel.report.run_report",
    "build_trainer": "hf_accel.training.build",
    "load_recipe": "hf_accel.config.recipe",
    "predict": "hf_accel.training.prediction",
    "report_on": "hf_accel.training.finish",
}

# `python hf_accel/train.py` puts this folder first on sys.path, where evaluate.py would hide the library of that name.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """`hf_accel.predict` is the function, also after an import of the module of the command `hf-accel predict`.

    An import sets a submodule as an attribute of its package, which would hide a function of that name. The module itself
    is reached as every other one: `from hf_accel.predict import main`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
