"""`training.optim` and its `optim_args`: the names that it may have, and the arguments of timm's optimizers.

The names are read from the source of the installed transformers and timm, because importing either takes seconds. The
method is methods/timm_optimizers.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hf_accel.config.training import enum_values, package_folder
from hf_accel.config.yaml_text import parse_yaml
from hf_accel.errors import UserError, did_you_mean

PREFIX = "timm/"
LOOKAHEAD = "lookahead_"
MUON = "muon"
# Arguments of TrainingArguments that other optimizers read, and what says the same to timm's.
OF_OTHERS = {"adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "eps"}
# What optim_args may not hold, and what says it.
INSTEAD = {"lr": "training.learning_rate", "weight_decay": "training.weight_decay", "betas": "beta1=..., beta2=..."}


@dataclass(frozen=True)
class TimmOptimizer:
    """One of timm's optimizers, with the arguments that are not its own defaults."""

    name: str  # timm's, "lamb" or "lookahead_lamb"
    arguments: dict[str, Any] = field(default_factory=dict)  # beta1, beta2 and beta3 are places in its betas

    @classmethod
    def parse(cls, where: str, optim: str, optim_args: str | None) -> TimmOptimizer:
        """Read "timm/lamb" and "beta1=0.9,beta2=0.99,grad_averaging=true", the Trainer's own format.

        Raises:
            UserError: timm has no such optimizer, the Trainer cannot run it, or the arguments cannot be read.
        """
        name = optim.removeprefix(PREFIX)
        _require_known(where, optim, name.removeprefix(LOOKAHEAD))
        arguments: dict[str, Any] = {}
        for part in filter(None, (optim_args or "").replace(" ", "").split(",")):
            key, _, text = part.partition("=")
            if key in INSTEAD:
                raise UserError(f"{where}: training.optim_args: {key} is given. Set {INSTEAD[key]} instead.")
            arguments[key] = _value(where, key, text)
        return cls(name, arguments)


def optimizer_problem(where: str, training: dict[str, Any]) -> str | None:
    """What is wrong with `optim` and `optim_args`; None where nothing is, or where they are not of timm."""
    optim, text = training.get("optim"), training.get("optim_args")
    if not isinstance(optim, str) or not isinstance(text, str | None):
        return None
    if not optim.startswith(PREFIX):
        return _unknown_problem(where, optim)
    for name, ours in OF_OTHERS.items():
        if name in training:
            return f"{where}: training.{name} has no effect with {optim}. Set training.optim_args: {ours}=... instead."
    try:
        TimmOptimizer.parse(where, optim, text)
    except UserError as error:
        return str(error)
    return None


@cache
def timm_optimizers() -> dict[str, bool]:
    """timm's name of an optimizer -> whether it needs gradients of gradients."""
    source = package_folder("timm") / "optim" / "_optim_factory.py"
    return dict(_registered(source))


def _registered(source: Path) -> Iterator[tuple[str, bool]]:
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "OptimInfo":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            name = given["name"] if "name" in given else node.args[0]
            yield ast.literal_eval(name), "second_order" in given
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "register_alias" and len(node.args) == 2:
            yield ast.literal_eval(node.args[0]), False


def _require_known(where: str, optim: str, name: str) -> None:
    known = timm_optimizers()
    if name not in known:
        near = did_you_mean(optim, [f"{PREFIX}{name}" for name in known])
        raise UserError(f"{where}: training.optim is {optim!r}, and timm has no such optimizer. {near}")
    if known[name]:
        raise UserError(
            f"{where}: training.optim is {optim!r}, which needs gradients of gradients, and the Trainer does not keep their "
            "graph. Choose another optimizer."
        )


def _unknown_problem(where: str, optim: str) -> str | None:
    upstream = enum_values("training_args.py", "OptimizerNames")
    if optim in upstream or optim == MUON:
        return None
    of_timm = [PREFIX + name for name in timm_optimizers()]
    near = (
        f"Did you mean {PREFIX}{optim}?"
        if PREFIX + optim in of_timm
        else did_you_mean(optim, [*upstream, MUON, *of_timm])
    )
    return f"{where}: training.optim is {optim!r}, which is not an optimizer. {near}"


def _value(where: str, name: str, text: str) -> bool | int | float | str | None:
    try:
        value = parse_yaml(f"value: {text}")["value"]
    except UserError:
        value = {}
    if not name.isidentifier() or not text or not isinstance(value, bool | int | float | str | None):
        raise UserError(
            f"{where}: training.optim_args: {name}={text} cannot be read, expected names and values, as in "
            "momentum=0.9,nesterov=true"
        )
    return value
