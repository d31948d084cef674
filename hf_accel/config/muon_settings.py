"""`training.optim_args` of `optim: muon`. The method is methods/muon.py; its settings are checked without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from hf_accel.errors import UserError, did_you_mean


@dataclass(frozen=True)
class MuonSettings:
    """What `training.optim_args` may hold with `optim: muon`.

    `training.learning_rate` is the rate of the orthogonalised steps, which have the same size whatever the size of the
    gradient. The rates of SGD are for a loss that is the mean over the rows of a step: a rate published for a sum
    (as airbench's are) must be multiplied by the number of rows. `training.weight_decay` is the share of a weight that
    one step of SGD without momentum takes off at the full learning rate, so it need not be converted; orthogonalised
    weights do not decay.
    """

    momentum: float = 0.6  # Nesterov's, before the orthogonalisation
    head_lr: float | None = None  # SGD, weight of the classifier; None: learning_rate
    bias_lr: float | None = None  # SGD, biases, norms and embeddings; None: learning_rate
    sgd_momentum: float = 0.85  # Nesterov's
    ns_steps: int = 3  # Newton-Schulz iterations; 5 come closer to orthogonal
    # Before each step a convolution's weight is scaled to the norm sqrt(filters), so that the learning rate is the
    # angle of a step. It changes nothing where a batch norm follows, and everything where none does.
    normalize_weights: bool = True

    @classmethod
    def parse(cls, where: str, text: str | None) -> MuonSettings:
        """Read "momentum=0.6,head_lr=0.5", the Trainer's own format.

        Raises:
            UserError: an unknown name, or a value that is not a number in its range.
        """
        types = {f.name: str(f.type) for f in fields(cls)}
        values: dict[str, Any] = {}
        for part in filter(None, (text or "").replace(" ", "").split(",")):
            name, _, value = part.partition("=")
            if name not in types:
                raise UserError(f"{where}: training.optim_args: muon takes no {name!r}. {did_you_mean(name, types)}")
            values[name] = _read_value(where, name, value, types[name])
        return cls(**values)


def _read_value(where: str, name: str, text: str, annotation: str) -> float | int | bool:
    if annotation == "bool":
        if text in ("true", "false"):
            return text == "true"
        expected = "true or false"
    else:
        expected = "a number from 0 to below 1" if name.endswith("momentum") else "a number from 0"
        expected = "a whole number from 1" if annotation == "int" else expected
        try:
            value = int(text) if annotation == "int" else float(text)
        except ValueError:
            value = -1
        if value >= 1 if annotation == "int" else 0 <= value < (1 if name.endswith("momentum") else float("inf")):
            return value
    raise UserError(f"{where}: training.optim_args: {name} is {text!r}, expected {expected}")
