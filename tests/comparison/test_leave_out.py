"""`compare --leave_out`: a recipe without each of its techniques."""

import dataclasses
import re
from pathlib import Path

import pytest

from hf_accel import compare
from hf_accel.cli import run
from hf_accel.comparison.export import csv_table, latex, markdown, text_table
from hf_accel.comparison.leave_out import OFF, UNSET, as_flag, chosen_techniques, techniques_of, why_without_effect
from hf_accel.comparison.model_text import technique_cells
from hf_accel.comparison.schema import Comparison, Ratio
from hf_accel.comparison.table import recipe_differences
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import RECIPES_FOLDER, RecipeFile, load_recipe, shipped_recipes
from hf_accel.config.sections import AugmentSettings
from hf_accel.config.training import OWN_METHODS
from hf_accel.errors import UserError

DOCUMENT = Path(__file__).parents[2] / "docs" / "compare.md"


def names_of(recipe: str, variant: str | None = None, overrides: dict | None = None) -> list[str]:
    return [found.technique for found in techniques_of(load_recipe(recipe, variant, overrides))]


def test_a_technique_is_on_where_a_setting_differs_from_its_off_value():
    found = names_of("zoo_vit_tiny_cifar10")
    assert {"amp", "cached", "crop", "flip", "randaugment", "mixup", "label_smoothing", "weight_decay"} <= set(found)
    assert not {"channels_last", "cutmix", "ema", "compile", "checkpointing", "accumulation"} & set(found)
    assert {"ema", "cutmix", "compile"} <= set(
        names_of(
            "zoo_vit_tiny_cifar10",
            None,
            {"training": {"ema_decay": 0.99, "torch_compile": True}, "data": {"augment": {"cutmix": 1.0}}},
        )
    )


def test_the_baseline_has_no_technique_of_acceleration():
    speed = {*list(OFF)[: list(OFF).index("crop")]}
    assert not speed & set(names_of("resnet20_cifar10", "baseline"))
    assert not speed & set(names_of("vit_cifar10", "baseline"))


def test_every_variant_that_adds_one_technique_to_the_baseline_adds_that_one():
    for variant in ("channels_last", "compile", "cached", "device_transforms", "pin", "fused_optimizer", "checkpointing",
                    "keep_freed_memory", "amp"):  # fmt: skip
        added = set(names_of("vit_cifar10", variant)) - set(names_of("vit_cifar10", "baseline"))
        assert added == {variant}


def test_settings_that_a_recipe_does_not_name_count_with_the_defaults_of_upstream():
    from transformers import TrainingArguments

    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    for name, value in UNSET.items():
        setting = name.removeprefix("training.")
        if setting in defaults:
            assert str(defaults[setting]) == str(value), name
    # off where unset: no technique is missed
    for off in OFF.values():
        for name, value in off.items():
            setting = name.removeprefix("training.")
            if setting in defaults and name not in UNSET:
                assert defaults[setting] in (value, None), name


def test_every_augmentation_and_every_method_of_training_is_in_the_table():
    known = {name for off in OFF.values() for name in off}
    strengths = {"pad", "pad_mode", "scale", "ratio"}  # of crops
    augmentations = {f.name for f in dataclasses.fields(AugmentSettings)} - strengths
    assert {f"data.augment.{name}" for name in augmentations} <= known
    assert {f"training.{name}" for name in OWN_METHODS} <= known
    shared = RecipeFile.read(RECIPES_FOLDER / "_techniques.yaml").variants
    variants = {*shared} - {"baseline", "fp16", "bf16", "all"}  # amp is both formats
    assert variants <= OFF.keys()


def test_leaving_a_technique_out_changes_its_settings_and_no_other():
    for name in ("zoo_vit_tiny_cifar10", "speedrun_cifar10_94"):
        whole = load_recipe(name)
        for left_out in techniques_of(whole):
            without = load_recipe(name, None, overrides_from_flags(left_out.replace_in({})))
            changed = {re.sub(r"(randaugment|progressive_resizing)\..*", r"\1", key)
                       for key in recipe_differences(whole, without)}  # fmt: skip
            assert changed == set(left_out.settings), (name, left_out.technique)
            assert left_out.technique not in [other.technique for other in techniques_of(without)]


def test_no_accumulation_keeps_the_rows_of_a_step():
    (left_out,) = chosen_techniques(load_recipe("speedrun_cifar10_94"), ["accumulation"])
    assert left_out.settings == {
        "training.gradient_accumulation_steps": 1,
        "training.per_device_train_batch_size": 2000,
    }


def test_flags_for_the_same_setting_give_way():
    (left_out,) = chosen_techniques(load_recipe("zoo_vit_tiny_cifar10"), ["randaugment"])
    given = {"data.augment.randaugment.num_ops": "1", "learning_rate": "1e-3", "training.seed": "2"}
    assert left_out.replace_in(given) == {
        "learning_rate": "1e-3",
        "training.seed": "2",
        "data.augment.randaugment": "null",
    }
    (left_out,) = chosen_techniques(load_recipe("digits", None, {"training": {"bf16": True}}), ["amp"])
    assert left_out.replace_in({"training.bf16": "true", "max_steps": "3"}) == {"bf16": "false", "max_steps": "3"}


def test_a_technique_without_effect_on_this_machine_is_said_to_have_none():
    recipe = load_recipe("resnet20_cifar10")
    assert (
        why_without_effect("amp", recipe, "cpu", "no native bf16")
        == "bf16: auto is fp32 on this device: no native bf16"
    )
    assert why_without_effect("amp", recipe, "cpu", None) is None
    assert why_without_effect("pin", recipe, "cpu", None).startswith("memory is pinned for an accelerator")
    assert why_without_effect("pin", recipe, "NVIDIA H200", None) is None
    assert why_without_effect("keep_freed_memory", recipe, "NVIDIA H200", None).startswith("it changes the allocator")
    assert why_without_effect("cpu_kernels", recipe, "NVIDIA H200", None) is not None
    assert why_without_effect("mixup", recipe, "cpu", "no native bf16") is None


def test_the_document_lists_every_technique_with_what_switches_it_off():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    expected = {
        technique: ", ".join(f"`{name}: {as_flag(value)}`" for name, value in off.items())
        for technique, off in OFF.items()
    }
    assert {name: rows.get(name) for name in expected} == expected


# The command


def test_each_technique_is_left_out_once_and_what_it_gives_is_shown(stubbed, capsys):
    folder, done = stubbed
    words = ["--recipe", "digits", "--leave_out", "channels_last", "crop", "amp", "--repeats", "3"]
    assert compare.main([*words, "--output_dir", str(folder)]) == 0
    found = Comparison.load(folder)
    assert [row.name for row in found.rows] == ["default", "minus_channels_last", "minus_crop", "minus_amp"]
    assert [row.leaves_out for row in found.rows] == [None, "channels_last", "crop", "amp"]
    assert found.rows[1].technique == {"model.channels_last": [True, False]}
    assert found.rows[3].failure == "bf16: auto is fp32 on this device: no bf16 here"
    assert len(done()) == 9
    _, rows = technique_cells(found)
    layout, crop, precision = rows
    assert layout[:4] == ["channels_last", "model.channels_last: false", "2.00 (2.00 to 2.00)", "faster"]
    assert layout[4].startswith("+0.00")
    assert crop[3] == "no measurable difference"
    assert crop[4].startswith("+10.0")
    assert crop[5] == "higher"
    assert precision[2:6] == ["-", "failed", "-", "failed"]
    told = capsys.readouterr().out
    assert "What each technique gives" in told
    page = (folder / "report.html").read_text("utf-8")
    assert "Techniques that measurably raise images/s: <code>channels_last</code>." in page
    assert "Techniques that measurably raise test accuracy: <code>crop</code>." in page
    for text in (text_table(found), markdown(found), latex(found)):
        assert "2.00 (2.00 to 2.00)" in text
    assert "leaves_out" in csv_table(found).splitlines()[0]


def test_a_ratio_is_turned_around_with_its_interval():
    from hf_accel.comparison.model_text import _inverse

    turned = _inverse(Ratio(ratio=0.5, low=0.4, high=0.8, p_holm=0.01, verdict="slower"))
    assert (turned.ratio, turned.low, turned.high, turned.verdict) == (2.0, 1.25, 2.5, "faster")
    assert _inverse(Ratio(ratio=2.0, low=0.0, high=4.0, p_holm=1.0, verdict="faster")).high == float("inf")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["digits", "--variants", "all"], "all"),
        (["digits", "--variants", "default"], "default"),
        (["digit?"], "digits"),
    ],
)
def test_the_whole_recipe_can_be_a_variant_or_what_a_glob_matches(stubbed, words, name):
    folder, _ = stubbed
    words = ["--recipe", *words, "--leave_out", "cached", "--repeats", "1", "--output_dir", str(folder)]
    assert compare.main(words) == 0
    whole, without = Comparison.load(folder).rows
    assert (whole.name, without.name, without.failure) == (name, "minus_cached", None)
    assert without.technique == {"data.cache": ["memory", "none"]}


def test_a_dry_run_forecasts_every_row_and_writes_nothing(stubbed, capsys):
    folder, _ = stubbed
    words = ["--recipe", "digits", "--leave_out", "--repeats", "1", "--output_dir", str(folder), "--dry_run"]
    assert compare.main(words) == 0
    told = capsys.readouterr().out
    assert all(f"minus_{name} " in told for name in names_of("digits"))
    assert not folder.exists()


def test_the_default_folder_is_not_that_of_the_variants(stubbed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert compare.main(["--recipe", "digits", "--leave_out", "crop", "--repeats", "1"]) == 0
    assert (tmp_path / "outputs" / "compare" / "digits-leave_out" / "compare.json").is_file()


def test_a_technique_that_other_settings_need_is_a_row_that_says_so(stubbed, tmp_path):
    folder, _ = stubbed
    path = tmp_path / "mine.yaml"
    path.write_text("extends: digits\ndata: {cache: device}\n", encoding="utf-8")
    words = ["--recipe", str(path), "--leave_out", "device_transforms", "--repeats", "1", "--output_dir", str(folder)]
    assert compare.main(words) == 0
    assert "data.transforms is loader and data.cache is device" in Comparison.load(folder).rows[1].failure


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["digits", "--leave_out", "crob"], "Did you mean crop"),
        (["digits", "--leave_out", "mixup"], "digits does not switch it on. It has amp, channels_last"),
        (["digits", "resnet20_cifar10", "--leave_out"], "got 2 rows (digits, resnet20_cifar10), expected one recipe"),
        (["digits", "--variants", "all", "baseline", "--leave_out"], "got 2 rows"),
        (["digits", "--leave_out", "--paper"], "--leave_out and --paper cannot be combined"),
        (["digits", "--leave_out", "--baseline", "default"], "--leave_out and --baseline cannot be combined"),
    ],
)
def test_a_mistake_ends_at_once_with_exit_code_2(words, told, capsys, tmp_path):
    assert run(compare.main, ["--recipe", *words, "--output_dir", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_techniques_has_nothing_to_leave_out(tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text(
        "extends: digits\ndata: {augment: {crop: none}, cache: none, transforms: loader}\n"
        "model: {channels_last: false, kernels: library}\n"
        "training: {bf16: false, dataloader_pin_memory: false, keep_freed_memory: false, optim: adamw_torch, weight_decay: 0,\n"
        "  lr_scheduler_type: constant, warmup_steps: 0, max_grad_norm: 0}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match="switches no technique on"):
        chosen_techniques(load_recipe(path), [])


def test_every_shipped_recipe_has_techniques():
    assert all(names_of(name) for name in shipped_recipes())
