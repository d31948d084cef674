"""The packages that exporting needs and an installation may lack; imports none of them."""

from __future__ import annotations

from importlib.util import find_spec

from hf_accel.errors import UserError

NEEDED = ("onnx", "onnxruntime", "onnxscript")


def refuse_missing_packages(where: str) -> None:
    """Raises:
    UserError: one of them is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f'{where}: {missing[0]} is not installed. pip install "hf_accel[onnx]"')
