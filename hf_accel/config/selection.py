"""When a run is scored and saved, and which of its checkpoints is the model that is kept.

These defaults depend on each other, so they are derived together from what the recipe says: none of them may make an
argument of the user's fail, and none may contradict one (a loss is better when it is lower).
"""

from __future__ import annotations

import json
from typing import Any

from hf_accel.config.domains import MULTI_LABEL
from hf_accel.errors import UserError, did_you_mean

Reasons = dict[str, tuple[Any, str]]  # argument -> (value, why)

METRICS = ("accuracy", "loss", "top5_accuracy", "f1_macro", "f1_micro", "f1_weighted")  # the first selects by default
MULTI_LABEL_METRICS = ("mean_average_precision", "loss", "accuracy", "f1_macro", "f1_micro", "f1_weighted")
FEWEST_TOP5_CLASSES = 6  # with five classes every answer is among the first five
NEEDS_VALIDATION = ("eval_steps", "eval_delay", "eval_on_start", "metric_for_best_model", "greater_is_better")
PLATEAU = ("reduce_lr_on_plateau", "greedy")
TENTH = 0.1  # of all steps


def selection_defaults(
    where: str,
    asked: dict[str, Any],
    has_validation: bool,
    has_own_metrics: bool = False,
    has_standard_metrics: bool = True,
    task: str | None = None,
) -> Reasons:
    """The defaults of evaluation, saving and selection that follow from what was asked.

    Args:
        where: the recipe, for messages.
        asked: the `training:` of the recipe.
        has_validation: whether there are rows to select by.
        has_own_metrics: whether a caller computes metrics of any name.
        has_standard_metrics: whether those of `metrics_of` are computed; False: the loss alone.
        task: `model.task` of the recipe.
    Returns:
        Only arguments that were not asked for, each with its value and the reason.
    Raises:
        UserError: what was asked needs validation rows, or contradicts itself.
    """
    if not has_validation:
        return _without_validation(where, asked)
    values = _strategies(asked)
    chosen = {**{name: value for name, (value, _) in values.items()}, **asked}
    if chosen["eval_strategy"] == "no":
        _refuse_without_scores(where, asked)
        values["load_best_model_at_end"] = (False, "the validation rows are not scored, so nothing selects")
    else:
        computed = metrics_of(task) if has_standard_metrics else ("loss",)
        values |= _best_model(where, asked, chosen, has_own_metrics, computed)
    return {name: value for name, value in values.items() if name not in asked}


def metrics_of(task: str | None) -> tuple[str, ...]:
    """The figures of a split that can select, of which the first does where none is named."""
    return MULTI_LABEL_METRICS if task == MULTI_LABEL else METRICS


def refuse_missing_metric(where: str, metric: str | None, num_labels: int) -> None:
    """Refuse to select by a figure that is not computed for so few classes.

    Raises:
        UserError: top5_accuracy with five classes or fewer.
    """
    if metric is not None and metric.removeprefix("eval_") == "top5_accuracy" and num_labels < FEWEST_TOP5_CLASSES:
        raise UserError(
            f"{where}: training.metric_for_best_model is {metric!r}, which is not computed for {num_labels} classes: each "
            "answer is among the first five. Expected accuracy, loss or an F1."
        )


def plateau_kwargs(asked: dict[str, Any], greater_is_better: bool) -> dict[str, Any] | None:
    """`lr_scheduler_kwargs` of a schedule that follows the selecting figure: upstream takes every figure for a loss.

    Returns:
        What was asked for, with `mode` where it was not; None for any other schedule.
    """
    if asked.get("lr_scheduler_type") not in PLATEAU:
        return None
    given = asked.get("lr_scheduler_kwargs") or {}
    given = json.loads(given) if isinstance(given, str) else given
    return {"mode": "max" if greater_is_better else "min", **given}


def _without_validation(where: str, asked: dict[str, Any]) -> Reasons:
    if asked.get("eval_strategy", "no") != "no":
        raise UserError(
            f"{where}: training.eval_strategy is {asked['eval_strategy']!r} but there are no validation rows. Set "
            "data.validation, for example 0.1, or leave eval_strategy out."
        )
    needing = [name for name in NEEDS_VALIDATION if asked.get(name)]
    needing += ["load_best_model_at_end"] if asked.get("load_best_model_at_end") else []
    needing += ["do_eval"] if asked.get("do_eval") else []
    if asked.get("save_strategy") == "best":
        needing.append("save_strategy")
    if asked.get("lr_scheduler_type") in PLATEAU:
        needing.append("lr_scheduler_type")
    if needing:
        raise UserError(
            f"{where}: training.{needing[0]} is {asked[needing[0]]!r}, which needs validation rows, and there are none. Set "
            f"data.validation, for example 0.1, or leave {needing[0]} out."
        )
    values: Reasons = {
        "eval_strategy": ("no", "no validation rows: the test rows are scored once, with the last weights"),
        "load_best_model_at_end": (False, "no validation rows to select by"),
    }
    saving = "steps" if "save_steps" in asked else "epoch"
    values["save_strategy"] = (saving, "save_steps is given" if saving == "steps" else "a checkpoint every epoch")
    return {name: value for name, value in values.items() if name not in asked}


def _strategies(asked: dict[str, Any]) -> Reasons:
    """eval_strategy and save_strategy with their steps, where only one is given, the other follows it."""
    saving = asked.get("save_strategy", "steps" if "save_steps" in asked else None)
    scoring = asked.get("eval_strategy", "steps" if "eval_steps" in asked else None)
    values: Reasons = {}
    if scoring is None:
        scoring = saving if saving in ("epoch", "steps") else "epoch"
        why = (
            "as often as the model is saved"
            if saving in ("epoch", "steps")
            else "the validation rows are scored every epoch"
        )
        values["eval_strategy"] = (scoring, why)
    elif "eval_strategy" not in asked:
        values["eval_strategy"] = (scoring, "eval_steps is given")
    if saving is None:
        saving = "epoch" if scoring == "no" else scoring
        why = "a checkpoint every epoch" if scoring == "no" else "as often as the validation rows are scored"
        values["save_strategy"] = (saving, why)
    elif "save_strategy" not in asked:
        values["save_strategy"] = (saving, "save_steps is given")
    if scoring == "steps" and "eval_steps" not in asked:
        follows = saving == "steps" and "save_steps" in asked
        values["eval_steps"] = (asked["save_steps"], "as save_steps") if follows else (TENTH, "ten times per run")
    if saving == "steps" and "save_steps" not in asked:
        follows = scoring == "steps"
        every = asked.get("eval_steps", TENTH)
        values["save_steps"] = (every, "as eval_steps") if follows else (TENTH, "ten times per run")
    return values


def _best_model(
    where: str, asked: dict[str, Any], chosen: dict[str, Any], has_own_metrics: bool, computed: tuple[str, ...]
) -> Reasons:
    metric = asked.get("metric_for_best_model") or computed[0]
    name = metric.removeprefix("eval_")
    is_own = has_own_metrics and name not in computed
    if name not in computed and not is_own:
        raise UserError(
            f"{where}: training.metric_for_best_model is {metric!r}, which is not computed here. "
            f"{did_you_mean(name, list(computed))}"
        )
    greater = asked.get("greater_is_better", not name.endswith("loss")) if is_own else name != "loss"
    better = "higher" if greater else "lower"
    if asked.get("greater_is_better", greater) != greater:
        raise UserError(
            f"{where}: training.greater_is_better is {asked['greater_is_better']}, but the {better} value of {name} is better, "
            "so the worst checkpoint would be kept. Leave greater_is_better out."
        )
    values: Reasons = {
        "metric_for_best_model": (computed[0], f"{computed[0]} on the validation rows selects"),
        "greater_is_better": (greater, f"a {better} {name} is better"),
    }
    problem = _why_nothing_to_load(chosen)
    why = (
        "the best checkpoint is the model that is kept" if problem is None else f"the last weights are kept: {problem}"
    )
    values["load_best_model_at_end"] = (problem is None, why)
    if problem is not None and asked.get("load_best_model_at_end"):
        raise UserError(f"{where}: training.load_best_model_at_end is true, but {problem}.")
    return values


def _why_nothing_to_load(chosen: dict[str, Any]) -> str | None:
    """Why the best scored model has no checkpoint; None when it has one."""
    saving, scoring = chosen["save_strategy"], chosen["eval_strategy"]
    if saving == "no":
        return "no checkpoint is saved (save_strategy: no)"
    if saving == "best":
        return None
    if saving != scoring:
        return f"checkpoints are saved by {saving} and scored by {scoring}, so the best may not have been saved"
    if saving == "steps" and not _is_multiple(chosen["save_steps"], chosen["eval_steps"]):
        return f"save_steps ({chosen['save_steps']}) is not a multiple of eval_steps ({chosen['eval_steps']})"
    return None


def _is_multiple(save_steps: float, eval_steps: float) -> bool:
    if (save_steps < 1) != (eval_steps < 1):
        return False
    scale = 1 if save_steps >= 1 else 1_000_000
    return round(eval_steps * scale) > 0 and round(save_steps * scale) % round(eval_steps * scale) == 0


def _refuse_without_scores(where: str, asked: dict[str, Any]) -> None:
    needing = [name for name in NEEDS_VALIDATION if asked.get(name)]
    needing += [name for name in ("load_best_model_at_end", "early_stopping_patience", "early_stopping_threshold", "do_eval")
                if asked.get(name)]  # fmt: skip
    needing += ["save_strategy"] if asked.get("save_strategy") == "best" else []
    needing += ["lr_scheduler_type"] if asked.get("lr_scheduler_type") in PLATEAU else []
    if needing:
        raise UserError(
            f"{where}: training.{needing[0]} is {asked[needing[0]]!r}, but training.eval_strategy is 'no', so the validation "
            "rows are not scored. Leave one of the two out."
        )
