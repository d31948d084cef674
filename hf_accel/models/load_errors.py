"""Whatever goes wrong while a model is loaded, as one message."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import timm

from hf_accel.errors import UserError, did_you_mean, machine_failure

TIMM_PREFIX = "timm/"


@contextlib.contextmanager
def load_errors(
    setting: str, name: str, kind: str = "image classifier", processor: str = "processor"
) -> Iterator[None]:
    """Say in one message what the Hub client says in several tracebacks.

    Args:
        kind: of the model that is expected.
        processor: what is loaded with it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged files raise errors of any kind, in transformers, timm and safetensors
        is_of_files = isinstance(error, OSError | ValueError | ImportError | KeyError)
        if not is_of_files and machine_failure(error) is not None:
            raise
        text = " ".join(str(error).split())
        text = text if is_of_files else f"{type(error).__name__}: {text}"
        if "trust_remote_code" in text:
            raise UserError(
                f"{setting}: {name} needs code of its own, and code from a repository is never run here. Choose a model "
                "whose architecture is part of transformers or timm."
            ) from error
        if is_of_files and "safetensors" in text:
            raise UserError(
                f"{setting}: {name} has no model.safetensors. Weights in pytorch_model.bin are a pickle, which can run "
                "code when it is opened, so they are never loaded. Expected the same weights as safetensors: "
                "https://huggingface.co/spaces/safetensors/convert."
            ) from error
        if Path(name).is_dir():
            raise UserError(
                f"{setting}: the folder {name} holds no model that can be loaded: {_excerpt(text)}"
            ) from error
        if (
            not is_of_files
            or "does not appear to have" in text
            or "Unrecognized model" in text
            or "not supported in your version" in text
        ):
            raise UserError(f"{setting}: {name} holds no {kind} that can be loaded: {_excerpt(text)}") from error
        architecture = name.removeprefix(TIMM_PREFIX).split(".")[0]
        if name.startswith(TIMM_PREFIX) and not timm.is_model(architecture):
            raise UserError(
                f"{setting}: timm has no model {architecture!r}. {did_you_mean(architecture, timm.list_models())}"
            ) from error
        raise UserError(
            f"{setting}: {name} is not on this machine and cannot be fetched from the Hub ({_excerpt(text, 200)}). Its "
            f"config.json, weights and {processor} would be downloaded. Check the name and the connection, or download it "
            f"elsewhere (`hf download {name} --local-dir FOLDER`) and set {setting} to that folder."
        ) from error


def _excerpt(text: str, most: int = 400) -> str:
    return textwrap.shorten(text, most, placeholder=" …")
