"""Flags of other tools are answered with the settings here, and no answer is wrong."""

import re
import shlex
from functools import cache

import pytest

from hf_accel.cli import command_parser, parse_with_overrides, run
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.migration.answers import TOOLS, answer_to
from hf_accel.config.migration.counterparts import same_name
from hf_accel.config.recipe import RecipeFile
from hf_accel.config.training import training_types
from hf_accel.errors import UserError
from hf_accel.train import main
from hf_accel.training.supported import refuse_unsupported

ROWS = [(tool, row) for tool, rows in TOOLS.items() for row in rows]


FINETUNE = RecipeFile.read("finetune")


@cache
def taken(answer):
    """The recipe that results from the flags of an answer, by the parser of `train`."""
    parser = command_parser("train", "")
    for name in ("--recipe", "--variant"):
        parser.add_argument(name)
    parser.add_argument("--overwrite", action="store_true")
    _, flags = parse_with_overrides(parser, shlex.split(answer), check=overrides_from_flags)
    recipe = FINETUNE.recipe(overrides=overrides_from_flags(flags))
    refuse_unsupported("finetune", dict(recipe.training))
    return recipe


@pytest.mark.parametrize(("tool", "row"), ROWS, ids=lambda part: getattr(part, "theirs", part))
def test_every_answer_is_accepted_by_the_parser_and_the_checks_of_a_recipe(tool, row):
    answers = [row.answer(value) for value in (row.example, *row.values, "true")]
    for answer in filter(None, answers):
        taken(answer)
    for flag in re.findall(r"`(--[^`]+)`", row.note):
        if not re.search(r"\bN\b|RUN/|NAME", flag) and " " in flag:
            taken(flag)
    assert any(answers) or row.note, f"{tool}: {row.theirs} has neither an answer nor a reason"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_has_each_name_once_and_none_that_is_a_flag_here(tool):
    names = [same_name(name) for row in TOOLS[tool] for name in row.names]
    assert sorted(names) == sorted(set(names))
    assert not set(names) & set(training_types())


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (
            "--lr 1e-3 --epochs 5 --batch_size 8",
            ("learning_rate", 1e-3, "num_train_epochs", 5, "per_device_train_batch_size", 8),
        ),
        ("--sched cosine --smoothing 0.1", ("lr_scheduler_type", "cosine", "label_smoothing_factor", 0.1)),
        ("--amp --no_cuda", ("bf16", "auto", "use_cpu", True)),
        ("-b 64 -j 4", ("per_device_train_batch_size", 64, "dataloader_num_workers", 4)),
        ("--opt sgd --warmup_ratio 0.2", ("optim", "sgd", "warmup_steps", 0.2)),
        ("--evaluation_strategy epoch --wandb", ("eval_strategy", "epoch", "report_to", "wandb")),
    ],
)
def test_the_line_to_copy_sets_what_the_flags_of_the_other_tool_meant(flags, settings):
    with pytest.raises(UserError) as caught:
        taken(flags)
    (line,) = re.findall(r"^Together: (.*)$", str(caught.value), re.MULTILINE)
    training = taken(line).training
    for name, value in zip(settings[::2], settings[1::2], strict=True):
        assert training[name] == value, name


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("mixup", "0.2", ["--data.augment.mixup 0.2"]),
        ("train_dir", "./my photos", ["--data.name './my photos'", "the folder above"]),
        ("train_val_split", "0.15", ["--data.validation 0.15"]),
        ("imgsz", "224", ["--data.image_size 224"]),
        ("device", "cpu", ["--use_cpu true"]),
        ("device", "cuda:0", ["No counterpart", "CUDA_VISIBLE_DEVICES"]),
        ("freeze", "10", ["--model.freeze 10", "the stem and that many layers after it"]),
        ("resume", "true", ["resumes an interrupted run"]),
        ("ignore_mismatched_sizes", "true", ["leave it out"]),
        ("data", "./photos", ["--data.name ./photos"]),
        ("model", "resnet50", ["--model.name timm/resnet50"]),
        ("verbose", "true", ["--log_level info"]),
        ("wandb", "true", ["--report_to wandb"]),
        ("sched", "step", ["This value has no counterpart"]),
        ("aa", "rand-m9-n3-mstd0.5-inc1", ["--data.augment.randaugment '{num_ops: 3, magnitude: 9}'"]),
        ("class_weights", "balanced", ["--data.class_weights balanced"]),
        ("on_bad_image", "skip", ["--data.on_bad_image skip"]),
        ("revision", "main", ["--model.revision main or --data.revision main"]),
        ("lerning_rate", "1", ["Did you mean learning_rate"]),
    ],
)
def test_a_flag_is_answered_with_the_setting_here_or_with_what_to_do_instead(flag, value, words):
    answer = answer_to({flag: value})
    assert answer.startswith(f"--{flag}: not an argument of TrainingArguments or a setting. ")
    for part in words:
        assert part in answer


def test_tools_that_mean_different_things_by_a_name_are_told_apart():
    answer = answer_to({"mixup": "1.0"})
    assert "As in timm and fastai: Write --data.augment.mixup 1.0" in answer
    assert "As in Ultralytics: Write --data.augment.mixup 0.2" in answer
    for value, scale in (
        ("0.5", "[0.5, 1.0]"),
        ("0.08 1.0", "[0.08, 1.0]"),
    ):  # one number is Ultralytics', two are timm's
        assert f"Write --data.augment.crop random_resized --data.augment.scale '{scale}'." in answer_to(
            {"scale": value}
        )


def test_all_unknown_flags_are_answered_at_once_before_anything_is_written(tmp_path, capsys):
    output = tmp_path / "run"
    flags = ["--lr", "1e-3", "--amp", "--jsd-loss", "--sed", "1", "--scale", "0.08", "1.0", "--output-dir", str(output)]
    assert run(main, flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 5 flags are not arguments of TrainingArguments or settings:\n")
    for line in ("--lr 1e-3: Write --learning_rate 1e-3", "--amp: Write --bf16 auto", "--jsd-loss: No counterpart here",
                 "--sed 1: Did you mean seed", "--scale '0.08 1.0': "):  # fmt: skip
        assert f"\n  {line}" in error
    assert "--data.augment.scale '[0.08, 1.0]'" in error
    assert "Traceback" not in error
    assert not output.exists()
