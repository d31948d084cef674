"""Each argument of TrainingArguments has an effect or is refused; defaults that depend on each other agree."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from hf_accel.cli import run
from hf_accel.config.training import MAPPINGS, OWN_METHODS, training_types
from hf_accel.errors import UserError
from hf_accel.evaluate import evaluate
from hf_accel.recipe import main as recipe_main
from hf_accel.train import main
from hf_accel.training.arguments import training_arguments
from hf_accel.training.build import build_trainer
from hf_accel.training.supported import EFFECT, NEEDS, REFUSED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(tiny_recipe):
    """TrainingArguments of a tiny recipe: `arguments(eval_steps=3)`."""

    def make(has_validation=True, **training):
        return training_arguments(tiny_recipe({"training": training}), has_validation).training

    return make


@pytest.mark.parametrize("name", training_types())
def test_every_argument_either_has_an_effect_or_is_refused_with_a_reason(name):
    assert (name in EFFECT) != (name in REFUSED)
    assert EFFECT[name] if name in EFFECT else REFUSED[name].reason


def test_the_tables_hold_no_argument_that_transformers_lacks():
    assert set(EFFECT) | set(REFUSED) == set(training_types())
    assert set(NEEDS) <= set(EFFECT)


NOT_HONOURED = {
    "average_tokens_across_devices": False,
    "batch_eval_metrics": True,
    "bf16_full_eval": True,
    "do_eval": False,
    "do_predict": False,
    "do_train": False,
    "eval_do_concat_batches": False,
    "fp16_full_eval": True,
    "include_for_metrics": ["inputs"],
    "include_num_input_tokens_seen": "all",
    "length_column_name": "len",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "parallelism_config": "x",
    "prediction_loss_only": True,
    "train_sampling_strategy": "sequential",
    "use_cache": True,
    "use_liger_kernel": True,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_cannot_be_honoured_is_refused_and_its_default_is_not(name, arguments):
    with pytest.raises(UserError) as caught:
        arguments(**{name: NOT_HONOURED[name]})
    assert f"training.{name} is {NOT_HONOURED[name]!r}" in str(caught.value)
    assert REFUSED[name].reason in str(caught.value)
    for allowed in REFUSED[name].allowed:
        if allowed not in (None, "group_by_length"):  # images have no length
            arguments(**{name: allowed})


ALONE = {
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 4,
    "dataloader_multiprocessing_context": "spawn",
    "dataloader_in_order": False,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "activation_checkpointing_kwargs": {"use_reentrant": False},
    "fsdp_config": {"min_num_params": 1},
    "run_name": "x",
    "project": "x",
    "trackio_space_id": "x",
    "trackio_bucket_id": "x",
    "trackio_static_space_id": "x",
}


@pytest.mark.parametrize("name", NEEDS)
def test_an_argument_without_the_one_it_belongs_to_is_refused(name, arguments):
    with pytest.raises(UserError, match=f"training.{name} is .* no effect without training.{NEEDS[name][1][0]}"):
        arguments(**{name: ALONE[name]})


REACHES = {
    "per_device_train_batch_size": 3,
    "num_train_epochs": 4.0,
    "max_steps": 5,
    "learning_rate": 0.02,
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 1.5},
    "warmup_steps": 2,
    "optim": "sgd",
    "optim_args": "momentum=0.8",
    "weight_decay": 0.03,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-6,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.5,
    "label_smoothing_factor": 0.2,
    "activation_checkpointing": True,
    "gradient_checkpointing": True,
    "torch_compile_backend": "inductor",
    "torch_compile_mode": "reduce-overhead",
    "torch_empty_cache_steps": 3,
    "auto_find_batch_size": True,
    "logging_strategy": "epoch",
    "logging_steps": 7,
    "logging_first_step": True,
    "log_on_each_node": False,
    "logging_nan_inf_filter": True,
    "log_level": "warning",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "eval_delay": 1,
    "per_device_eval_batch_size": 5,
    "eval_on_start": True,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 2,
    "save_only_model": True,
    "save_strategy": "best",
    "save_steps": 4,
    "save_on_each_node": True,
    "save_total_limit": 5,
    "load_best_model_at_end": False,
    "metric_for_best_model": "f1_macro",
    "greater_is_better": True,
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "full_determinism": True,
    "seed": 7,
    "data_seed": 8,
    "use_cpu": True,
    "dataloader_drop_last": True,
    "dataloader_num_workers": 1,
    "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 10,
    "ddp_broadcast_buffers": False,
    "ddp_static_graph": True,
    "ddp_timeout": 60,
    "skip_memory_metrics": False,
    "hub_model_id": "me/x",
    "hub_strategy": "end",
    "hub_private_repo": True,
    "hub_always_push": True,
    "hub_revision": "next",
}
# These need a device, a launcher or a service, or are answered elsewhere: a test of its own, or the Trainer itself.
ELSEWHERE = {
    "accelerator_config": "test_with_several_processes_a_batch_for_each_is_needed",
    "bf16": "test_equivalence.py",
    "ddp_backend": "read by accelerate when it starts several processes",
    "debug": "read by the Trainer: TPU metrics, underflow and overflow",
    "deepspeed": "needs deepspeed",
    "dataloader_pin_memory": "false without an accelerator",
    "fp16": "refused on a CPU",
    "fsdp": "refused in a single process",
    "hub_token": "hub/test_push.py: it is kept from every file",
    "label_names": "set by this package",
    "local_rank": "refused unless a launcher sets it",
    "optim_target_modules": "needs galore or apollo",
    "output_dir": "the fixture sets it",
    "push_to_hub": "set by this package",
    "remove_unused_columns": "set by this package",
    "enable_jit_checkpoint": "set by this package; training/test_preemption.py",
    "report_to": "training/test_trackers.py",
    "resume_from_checkpoint": "runs/test_folder.py",
    "tf32": "needs CUDA",
    "torch_compile": "training/test_compilation.py",
}
OWN = ("early_stopping_patience", "early_stopping_threshold", "keep_freed_memory", "cpu_threads", "on_nan", *MAPPINGS,
       *OWN_METHODS)  # fmt: skip


def test_every_argument_with_an_effect_is_followed_to_it():
    assert set(REACHES) | set(ELSEWHERE) | set(OWN) | set(NEEDS) == set(EFFECT)


@pytest.mark.parametrize("name", REACHES)
def test_an_argument_reaches_the_trainer_with_the_value_that_was_asked_for(name, tiny_recipe):
    asked = {name: REACHES[name]}
    if name == "optim_args":
        asked["optim"] = "sgd"
    if name == "lr_scheduler_kwargs":
        asked["lr_scheduler_type"] = "cosine"
    made = training_arguments(tiny_recipe({"training": asked}), True)
    assert getattr(made.training, name) == REACHES[name]


def test_the_document_is_the_one_that_the_tables_give(capsys):
    assert recipe_main(["arguments"]) == 0
    shown = capsys.readouterr().out
    assert shown == (ROOT / "docs" / "arguments.md").read_text("utf-8"), (
        "run: hf-accel recipe arguments > docs/arguments.md"
    )
    source = Path(__file__).read_text("utf-8")
    for test in re.findall(r"`(test_\w+)`", shown):
        assert f"def {test}(" in source
    for name in training_types():
        assert shown.count(f"| `{name}` |") == 1
    upstream, _, own = shown.partition("Added by this package:")
    assert f"\n{len(fields(TrainingArguments))} arguments" in upstream
    assert all(f"| `{name}` |" in own for name in OWN_METHODS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_steps", "0"], "training.max_steps is 0, expected a number above 0"),
        (["--do_train", "false"], "`hf-accel evaluate FOLDER` only scores"),
        (["--fsdp", "full_shard"], "accelerate launch --num_processes N"),
        (["--optim", "lion_8bit"], "bitsandbytes"),
        (["--optim", "schedule_free_adamw"], "schedulefree"),
        (["--optim_target_modules", "fc"], "optim_target_modules has no effect"),
        (["--optim", "sgd", "--optim_args", "nesterov=true"], "Nesterov momentum requires a momentum"),
        (["--adam_beta1", "2"], "training.adam_beta1 is 2, expected a number from 0 to below 1"),
        (["--max_grad_norm", "-1"], "training.max_grad_norm is -1, expected a number from 0"),
        (["--ddp_backend", "glo"], "training.ddp_backend is 'glo'. Did you mean gloo"),
        (["--deepspeed", "ds.json"], "which is not installed: pip install deepspeed"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "lr_scheduler_kwargs"),
        (["--local_rank", "0"], "a launcher sets"),
        (["--metric_for_best_model", "acuracy"], "Did you mean accuracy"),
        (["--metric_for_best_model", "runtime"], "not computed here"),
        (["--metric_for_best_model", "top5_accuracy"], "not computed for 2 classes"),
        (["--metric_for_best_model", "loss", "--greater_is_better", "true"], "the lower value of loss is better"),
        (["--greater_is_better", "false"], "the worst checkpoint would be kept"),
        (["--load_best_model_at_end", "true", "--save_strategy", "no"], "no checkpoint is saved"),
        (["--eval_strategy", "no", "--early_stopping_patience", "2"], "eval_strategy is 'no'"),
        (["--eval_strategy", "no", "--lr_scheduler_type", "reduce_lr_on_plateau"], "eval_strategy is 'no'"),
        (["--data.validation", "0", "--eval_on_start", "true"], "needs validation rows"),
        (["--data.validation", "0", "--lr_scheduler_type", "greedy"], "needs validation rows"),
        (["--data.validation", "0", "--save_strategy", "best"], "needs validation rows"),
    ],
)
def test_an_argument_that_would_fail_or_do_nothing_later_is_refused_before_anything_is_written(
    flags, message, photos, tmp_path, capsys
):
    model = ["--model.name", "timm/resnet10t", "--model.pretrained", "false", "--data.image_size", "16"]
    output = tmp_path / "run"
    assert run(main, ["--data.name", str(photos), *model, "--output_dir", str(output), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not output.exists()


def test_the_best_loss_is_the_lowest_and_the_best_of_any_score_the_highest(arguments):
    for metric in ("loss", "eval_loss"):
        chosen = arguments(metric_for_best_model=metric)
        assert chosen.load_best_model_at_end
        assert chosen.greater_is_better is False
    for metric in ("accuracy", "f1_macro", "eval_f1_weighted", "f1_micro"):
        assert arguments(metric_for_best_model=metric).greater_is_better is True


@pytest.mark.slow
def test_a_run_selected_by_loss_keeps_the_checkpoint_with_the_lowest_loss(tiny_recipe):
    training = {"metric_for_best_model": "loss", "num_train_epochs": 3, "learning_rate": 0.3, "save_total_limit": 5}
    trainer = build_trainer(tiny_recipe({"training": training}))
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(set(losses)) == 3
    assert trainer.state.best_metric == min(losses)


def test_of_epochs_with_the_same_accuracy_the_one_with_the_lowest_loss_is_kept(tiny_recipe):
    trainer = build_trainer(tiny_recipe())
    kept = []
    for step, (accuracy, loss) in enumerate([(0.5, 0.9), (0.5, 0.7), (0.5, 0.8), (0.4, 0.1), (0.6, 2.0), (0.6, 2.0)]):
        trainer.state.global_step = step
        metrics = {"eval_accuracy": accuracy, "eval_loss": loss}
        trainer.state.log_history.append({**metrics, "step": step})
        kept.append((trainer._determine_best_metric(metrics, None), trainer.state.best_global_step))
    assert kept == [(True, 0), (True, 1), (False, 1), (False, 1), (True, 4), (False, 4)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("epoch", None, "epoch", None, True)),
        ({"save_strategy": "steps", "save_steps": 7}, ("steps", 7, "steps", 7, True)),
        ({"save_strategy": "steps"}, ("steps", 0.1, "steps", 0.1, True)),
        ({"save_strategy": "no"}, ("epoch", None, "no", None, False)),
        ({"save_strategy": "best"}, ("epoch", None, "best", None, True)),
        ({"save_steps": 7}, ("steps", 7, "steps", 7, True)),
        ({"eval_steps": 3}, ("steps", 3, "steps", 3, True)),
        ({"eval_strategy": "steps"}, ("steps", 0.1, "steps", 0.1, True)),
        ({"eval_strategy": "steps", "eval_steps": 5}, ("steps", 5, "steps", 5, True)),
        ({"eval_strategy": "no"}, ("no", None, "epoch", None, False)),
        ({"eval_strategy": "epoch", "save_strategy": "steps"}, ("epoch", None, "steps", 0.1, False)),
        ({"eval_steps": 4, "save_steps": 6}, ("steps", 4, "steps", 6, False)),
        ({"eval_steps": 3, "save_steps": 6}, ("steps", 3, "steps", 6, True)),
        ({"eval_steps": 0.1, "save_steps": 0.3}, ("steps", 0.1, "steps", 0.3, True)),
        ({"eval_steps": 0.1, "save_steps": 6}, ("steps", 0.1, "steps", 6, False)),
        ({"load_best_model_at_end": False}, ("epoch", None, "epoch", None, False)),
        ({"eval_strategy": "epoch", "save_steps": 7}, ("epoch", None, "steps", 7, False)),
    ],
)
def test_evaluation_saving_and_selection_agree_whatever_of_them_is_asked(asked, expected, arguments):
    chosen = arguments(**asked)
    scoring, eval_steps, saving, save_steps, loads_best = expected
    assert (chosen.eval_strategy, chosen.save_strategy) == (scoring, saving)
    assert chosen.load_best_model_at_end is loads_best
    if eval_steps is not None:
        assert chosen.eval_steps == eval_steps
    if save_steps is not None:
        assert chosen.save_steps == save_steps
    for name, value in asked.items():
        assert getattr(chosen, name) == value


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_a_plateau_schedule_lowers_the_learning_rate_only_when_the_score_stands_still(metric, tiny_recipe):
    training = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": metric}
    trainer = build_trainer(tiny_recipe({"training": {**training, "lr_scheduler_kwargs": {"patience": 0}}}))
    trainer.create_optimizer_and_scheduler(10)
    rate = trainer.optimizer.param_groups[0]["lr"]
    improving = [0.1, 0.2, 0.3] if metric == "accuracy" else [0.3, 0.2, 0.1]
    for value in improving:
        trainer.lr_scheduler.step(value)
    assert trainer.optimizer.param_groups[0]["lr"] == rate
    trainer.lr_scheduler.step(improving[0])
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate / 10)


def test_a_mode_that_was_asked_for_stays(arguments):
    chosen = arguments(lr_scheduler_type="reduce_lr_on_plateau", lr_scheduler_kwargs={"mode": "min"})
    assert chosen.lr_scheduler_kwargs == {"mode": "min"}


@pytest.mark.slow
def test_a_run_with_a_plateau_and_early_stopping_is_scored_later(tiny_recipe):
    from hf_accel.train import train

    training = {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "early_stopping_patience": 3,
        "metric_for_best_model": "loss",
    }
    recipe = tiny_recipe({"training": training})
    folder = train(recipe)
    again = tiny_recipe({"training": training, "model": {"name": str(folder / "model")}})
    assert 0 <= evaluate(again)["accuracy"] <= 1


def test_the_weights_stay_what_they_were_after_scoring(tiny_recipe):
    trainer = build_trainer(tiny_recipe())
    trainer.train()
    trainer.predict(trainer.test_dataset)
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
