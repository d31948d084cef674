import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import (
    RecipeFile,
    apply_patch,
    find_recipe,
    header,
    load_recipe,
    shipped_recipes,
    variant_names,
)
from hf_accel.config.training import training_types
from hf_accel.errors import UserError
from hf_accel.recipe import LIST_HEADINGS, main

MINIMAL = "model: {name: timm/resnet18, pretrained: false}\ndata: {name: digits}\n"
DESIGNED_VARIANTS = {
    *("baseline", "fp16", "bf16", "amp", "ga_same_batch", "ga_larger_batch", "pin", "all"),
    *("channels_last", "compile", "cached", "device_transforms", "fused_optimizer", "checkpointing"),
}
PAPER = [f"{m}_{d}" for m in ("vit", "efficientnet_b0") for d in ("cifar10", "cifar100")]
PAPER += [f"resnet50_{d}_scratch" for d in ("cifar10", "cifar100")]


@pytest.fixture
def recipe_file(tmp_path):
    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_every_shipped_recipe_and_variant_is_valid():
    recipes = shipped_recipes()
    assert len(recipes) >= 12
    for name in recipes:
        file = RecipeFile.read(name)
        for variant in (None, *file.variants):
            recipe = file.recipe(variant)
            assert recipe.name == name
            assert recipe.variant == (variant or "default")


def test_every_recipe_has_the_variants_of_the_design():
    for name in shipped_recipes():
        recipe = load_recipe(name)
        has_fused = recipe.training.get("optim") not in ("sgd", "muon")  # neither has a fused form
        wanted = DESIGNED_VARIANTS if has_fused else DESIGNED_VARIANTS - {"fused_optimizer"}
        if recipe.model.task == "text-classification":  # XLNet cannot compute its activations again
            wanted = wanted - {"channels_last", "device_transforms", "checkpointing"} | {"group_by_length"}
        assert wanted <= set(variant_names(name)), name
        assert has_fused == ("fused_optimizer" in variant_names(name))


def test_the_paper_pair_ships_for_the_six_published_cases():
    for name in PAPER:
        assert {"as_published", "as_published_tuned"} <= set(variant_names(name))


def test_every_recipe_says_what_it_is_the_command_and_what_was_measured():
    for name, path in shipped_recipes().items():
        what, command, measured = header(path)[:3]
        assert what
        assert "hf-accel train" in command
        assert measured.startswith("Measured: "), name


def test_recipe_names_are_unique_across_folders():
    files = [p for p in find_recipe("digits").parent.rglob("*.yaml") if not p.name.startswith("_")]
    paths = [path for path in files if path.parent.name != "accelerate"]
    assert len(paths) == len({p.stem for p in paths}) == len(shipped_recipes())


def test_accumulation_variants_keep_or_multiply_the_batch():
    def batch(recipe):
        training = recipe.training
        return training["per_device_train_batch_size"] * training.get("gradient_accumulation_steps", 1)

    for name in shipped_recipes():
        file = RecipeFile.read(name)
        baseline = batch(file.recipe("baseline"))
        assert batch(file.recipe("ga")) == baseline
        assert batch(file.recipe("ga_larger_batch")) > baseline
        assert batch(file.recipe("all")) == batch(file.recipe())


def test_scientific_notation_without_a_dot_is_a_number(recipe_file):
    recipe = load_recipe(recipe_file(MINIMAL + "training: {learning_rate: 2e-5}\n"))
    assert recipe.training["learning_rate"] == 2e-5


def test_command_line_values_are_read_as_yaml():
    flags = {"learning_rate": "1e-4", "bf16": "false", "data.augment.flip": "true", "data.cache_size": "null"}
    assert overrides_from_flags(flags) == {
        "training": {"learning_rate": 1e-4, "bf16": False},
        "data": {"augment": {"flip": True}, "cache_size": None},
    }


@pytest.mark.parametrize("text", ["./my #1 photos", "2024", "no", "1e5", "{x}", "a: b"])
def test_a_name_on_the_command_line_stays_text(text):
    assert overrides_from_flags({"data.name": text, "model.revision": text, "hub_model_id": text}) == {
        "data": {"name": text},
        "model": {"revision": text},
        "training": {"hub_model_id": text},
    }


def test_a_value_cannot_also_be_a_section():
    with pytest.raises(UserError, match="already given"):
        overrides_from_flags({"model.args": "2", "model.args.x": "1"})


def test_a_file_name_with_yaml_characters_stays_text():
    assert overrides_from_flags({"data.name": "./a: b [c"}) == {"data": {"name": "./a: b [c"}}


def test_an_override_wins_over_the_variant_and_the_variant_over_the_recipe(recipe_file):
    path = recipe_file(
        MINIMAL
        + "training: {seed: 1, num_train_epochs: 1}\nvariants: {a: {training: {seed: 2, num_train_epochs: 2}}}\n"
    )
    recipe = load_recipe(path, "a", {"training": {"seed": 3}})
    assert recipe.training == {"seed": 3, "num_train_epochs": 2}


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        ({"name": "./tokenizer"}, True),
        ({"name": "./tokenizer", "args": {"n_layer": 1}}, False),
        ({"name": "./tokenizer", "args": {}}, False),
        ({"name": "xlnet/xlnet-base-cased"}, False),
        ({"pretrained": False}, False),
    ],
)
def test_a_network_that_loses_the_recipes_arguments_by_its_name_is_warned_of(model, warned):
    recipe = load_recipe("xlnet_amazon_polarity", "tiny", {"model": model})
    assert len(recipe.notes) == warned
    for part in ("n_layer", "xlnet/xlnet-base-cased", "./tokenizer") if warned else ():
        assert part in recipe.notes[0]
    assert "notes" not in recipe.to_dict()


def test_arguments_that_a_recipe_of_its_own_leaves_out_are_no_news(recipe_file):
    path = recipe_file("extends: xlnet_amazon_polarity\nmodel: {name: google-bert/bert-base-uncased}\n")
    assert load_recipe(path).notes == ()


def test_another_model_or_data_set_starts_without_the_arguments_of_the_previous_one(recipe_file):
    path = recipe_file(
        "model: {name: timm/resnet18, pretrained: false, args: {channels: [8, 8, 8, 8]}, channels_last: true}\n"
        "data: {name: a, label_column: kind, image_size: 32}\n"
    )
    other = load_recipe(path, overrides={"model": {"name": "timm/vit_tiny_patch16_224"}, "data": {"name": "b"}})
    assert other.model.args == {}
    assert other.model.channels_last
    assert (other.data.label_column, other.data.image_size) == (None, 32)
    same = load_recipe(path, overrides={"model": {"name": "timm/resnet18"}})
    assert same.model.args == {"channels": [8, 8, 8, 8]}


def test_variants_and_recipes_extend_each_other(recipe_file):
    recipe_file(MINIMAL + "training: {seed: 1}\nvariants: {a: {training: {seed: 2}}}\n", "base.yaml")
    path = recipe_file("extends: base\nvariants: {b: {extends: a, training: {max_steps: 5}}}\n")
    assert load_recipe(path).training == {"seed": 1}
    assert load_recipe(path, "b").training == {"seed": 2, "max_steps": 5}


def test_the_resolved_recipe_written_and_read_again_is_the_same(tmp_path):
    for name in shipped_recipes():
        recipe = load_recipe(name, "baseline", {"training": {"seed": 7}})
        recipe.write(tmp_path / "recipe.yaml")
        assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {nam: x, name: y}\ndata: {name: d}", ["model.nam is not a setting", "Did you mean name?"]),
        (MINIMAL + "training: {lerning_rate: 1}", ["training.lerning_rate", "Did you mean learning_rate"]),
        (MINIMAL + "traning: {}", ["traning is not a section", "training"]),
        (MINIMAL + "training: {learning_rate: fast}", ["training.learning_rate is 'fast'", "expected a number"]),
        (MINIMAL + "training: {seed: true}", ["training.seed is True", "expected a whole number"]),
        (MINIMAL + "training: {bf16: maybe}", ["training.bf16 is 'maybe'", 'true, false or "auto"']),
        (MINIMAL + "training: {bf16: true, fp16: true}", ["both true"]),
        (MINIMAL.replace("digits", "digits, validation: 1.5"), ["data.validation is 1.5", "from 0 to 0.9"]),
        (MINIMAL.replace("digits", "digits, cache: ram"), ["data.cache is 'ram'", "memory, disk, device, none"]),
        (MINIMAL.replace("digits", "digits, augment: {flipp: true}"), ["data.augment.flipp", "flip"]),
        (MINIMAL.replace("digits", "digits, augment: {scale: [1, 0.5]}"), ["data.augment.scale", "rising"]),
        (MINIMAL.replace("digits", "digits, augment: {randaugment: {ops: 2}}"), ["num_ops, magnitude"]),
        (MINIMAL.replace("digits", "digits, progressive_resizing: {begin: 8}"), ["start, full_at"]),
        (MINIMAL.replace("digits", "digits, progressive_resizing: {start: 8.5}"), ["whole number of pixels"]),
        (
            MINIMAL.replace("digits", "digits, progressive_resizing: {start: 8, full_at: 0}"),
            ["full_at is 0, expected a number above 0"],
        ),
        (MINIMAL.replace("digits", "digits, progressive_resizing: 128"), ["progressive_resizing is 128", "mapping"]),
        (MINIMAL.replace("digits", "digits, test_time_augmentation: flp"), ["none, flip, flip_shift", "mean flip?"]),
        (MINIMAL + "variants: {a: {trainin: {}}}", ["variants.a.trainin", "training"]),
        (MINIMAL + "variants: {a: {training: {sed: 1}}}", ["variants.a", "training.sed", "seed"]),
        ("training: {}", ["model.name is missing", "data.name is missing"]),
        ("model: [1", ["not valid YAML"]),
        ("- a\n- b", ["expected a mapping"]),
        (MINIMAL + "model: {name: x}", ["duplicate key"]),
        (MINIMAL + "extends: mine", ["circle"]),
        (MINIMAL + "extends: 5", ["extends is 5"]),
        (MINIMAL + "extends: nowhere", ["nowhere"]),
        (MINIMAL + "training: 5", ["training is 5", "mapping"]),
        (MINIMAL + "training: [1]", ["training is [1]", "mapping"]),
        (MINIMAL + "variants: [a]", ["variants is ['a']", "mapping"]),
        (MINIMAL + "variants: {a: 3}", ["variants.a is 3", "mapping"]),
        (MINIMAL + "data: 3", ["duplicate"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_fix(recipe_file, text, parts):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe_file(text))
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_reported_at_once(recipe_file):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe_file(MINIMAL + "training: {sed: 1, learning_rate: x}\nvariants: {a: {modl: {}}}\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: load_recipe("vit_cifar1"), ["no recipe", "vit_cifar10"]),
        (lambda: load_recipe("digits", "basline"), ["no variant", "baseline"]),
        (lambda: load_recipe("nowhere.yaml"), ["no such file"]),
        (lambda: overrides_from_flags({"lerning_rate": "1"}), ["--lerning_rate", "learning_rate"]),
    ],
)
def test_an_unknown_name_is_answered_with_near_names(call, parts):
    with pytest.raises(UserError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_the_flags_of_the_commands_are_not_names_of_training_arguments():
    own = {
        "recipe",
        "variant",
        "overwrite",
        "split",
        "format",
        "top_k",
        "batch_size",
        "on_bad_image",
        "model",
        "images",
    }
    assert not own & set(training_types())


def test_training_names_come_from_the_installed_transformers():
    import dataclasses

    from transformers import TrainingArguments

    assert {f.name for f in dataclasses.fields(TrainingArguments)} <= set(training_types())


def test_reading_recipes_does_not_import_torch():
    code = "import sys, hf_accel.recipe as r; r.load_recipe('vit_cifar10', 'all'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_copy_writes_a_recipe_that_works_elsewhere_and_never_overwrites(tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert main(["copy", "resnet20_cifar10", str(target)]) == 0
    assert load_recipe(target, "baseline").model == load_recipe("resnet20_cifar10", "baseline").model
    with pytest.raises(UserError, match="exists already"):
        main(["copy", "digits", str(target)])


def test_list_shows_every_recipe_with_its_model_data_and_what_was_measured(capsys):
    assert main(["list"]) == 0
    headings, *lines = capsys.readouterr().out.splitlines()
    assert re.split("  +", headings) == list(LIST_HEADINGS)
    cells = {line.split()[0]: re.split("  +", line) for line in lines}
    assert list(cells) == list(shipped_recipes())
    assert cells["resnet20_cifar10"][1:6] == [
        "hf_accel/cifar_resnet20",
        "uoft-cs/cifar10",
        "0.27 M",
        "88.63 %",
        "8 min 00 s",
    ]
    assert cells["vit_cifar10"][3:] == ["-", "not yet measured", "-", "-"]
    assert main(["list", "--json"]) == 0
    documents = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert documents["digits"]["measured"]["n"] == 3
    assert "digits" in documents["digits"]["purpose"]


# Where a run goes


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ({}, "digits/default"),
        ({"training": {"learning_rate": 0.1}, "data": {"cache": "none"}}, "digits/default"),
        ({"data": {"name": "digits"}}, "digits-digits/default"),
        ({"data": {"name": "./my photos/"}}, "digits-my-photos/default"),
        ({"data": {"name": "a/b/../photos"}}, "digits-photos/default"),
        ({"data": {"name": "uoft-cs/cifar10"}, "model": {"name": "timm/efficientnet_lite0"}},
         "digits-efficientnet_lite0-cifar10/default"),
        ({"data": {"name": "photos"}, "training": {"output_dir": "mine"}}, "../mine"),
    ],
)  # fmt: skip
def test_a_model_or_data_set_of_the_command_line_joins_the_name_of_the_folder(overrides, folder):
    recipe = load_recipe("digits", overrides=overrides)
    assert Path(os.path.normpath(recipe.output_dir)) == Path(os.path.normpath(Path("outputs") / folder))
    assert recipe.name == "digits"


def test_the_joined_name_is_kept_with_the_recipe_but_is_not_a_setting(tmp_path):
    recipe = load_recipe("finetune", "baseline", {"data": {"name": "./photos"}})
    assert recipe.output_dir == Path("outputs/finetune-photos/baseline")
    recipe.write(tmp_path / "recipe.yaml")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.output_dir == recipe.output_dir
    same = load_recipe(tmp_path / "recipe.yaml", overrides={"data": {"name": "./photos"}})
    assert same.output_dir == recipe.output_dir
    (tmp_path / "mine.yaml").write_text("extends: recipe.yaml\n")
    assert load_recipe(tmp_path / "mine.yaml").output_dir == Path("outputs/mine/default")
    assert "output_name" not in load_recipe("digits").to_dict()


@pytest.mark.parametrize(("name", "variant"), [("../../x", "../y"), ("..", "."), ("/etc/x", "a/../../y")])
def test_no_name_of_a_recipe_or_variant_leads_out_of_outputs(tmp_path, name, variant):
    (tmp_path / "mine.yaml").write_text(f"extends: digits\nname: {name}\nvariant: {variant}\n")
    with pytest.raises(UserError, match="expected a name that a folder can have"):
        load_recipe(tmp_path / "mine.yaml")


def test_a_recipe_file_is_read_once_for_all_its_variants(monkeypatch):
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.stem) or read_bytes(path))
    assert main(["validate", "vit_cifar100"]) == 0
    assert sorted(reads) == ["_techniques", "vit_cifar10", "vit_cifar100"]


def test_a_recipe_whose_texts_look_like_numbers_is_the_same_after_writing_and_reading(tmp_path):
    recipe = load_recipe("digits", overrides={"data": {"revision": "1e5"}, "training": {"run_name": "2024-01-01"}})
    recipe.write(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_a_whole_number_may_be_written_with_a_point():
    recipe = load_recipe("digits", overrides={"data": {"image_size": 32.0}, "training": {"max_steps": 5.0}})
    assert (recipe.data.image_size, recipe.training["max_steps"]) == (32, 5)
    assert isinstance(recipe.data.image_size, int)
    assert isinstance(recipe.training["max_steps"], int)


def test_a_recipe_without_a_name_has_that_of_its_file(recipe_file):
    assert load_recipe(recipe_file(MINIMAL, "my photos.yaml")).name == "my photos"
    assert load_recipe(recipe_file(MINIMAL + "name: 2024")).name == "2024"
    with pytest.raises(UserError, match=r"name is '\.\.', expected a name that a folder can have"):
        load_recipe(recipe_file(MINIMAL, "...yaml"))


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("data.augment.flip", "alternating", "alternating"),
        ("data.augment.flip", "no", False),
        ("data.class_weights", "[1, 2.5]", [1, 2.5]),
        ("data.augment.randaugment", "{magnitude: 5}", {"magnitude": 5}),
        ("data.augment.randaugment.magnitude", "5", 5),
        ("save_strategy", "no", "no"),
        ("report_to", "[wandb, mlflow]", ["wandb", "mlflow"]),
        ("report_to", "7", "7"),
        ("gradient_checkpointing_kwargs", "{use_reentrant: false}", {"use_reentrant": False}),
        ("training.max_steps", "5", 5),
        ("data.cache", "none", "none"),
        ("model.revision", "null", None),
        ("model.name", "null", "null"),
    ],
)
def test_a_flag_has_the_type_of_its_setting(flag, text, value):
    (section,) = overrides_from_flags({flag: text}).values()
    for key in flag.split(".")[1 if flag.startswith(("data", "model", "training.")) else 0 :]:
        section = section[key]
    assert section == value
    assert type(section) is type(value)


def test_another_optimizer_or_schedule_starts_from_its_own_arguments():
    def training(**patch):
        return load_recipe("resnet20_cifar10", overrides={"training": patch}).training

    assert training(optim="sgd")["optim_args"] == "momentum=0.9,nesterov=true"
    assert "optim_args" not in training(optim="timm/lamb")
    assert training(optim="timm/lamb", optim_args="beta1=0.8")["optim_args"] == "beta1=0.8"
    before = {"training": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}}}
    after = apply_patch(before, {"training": {"lr_scheduler_type": "one_cycle"}})
    assert after == {"training": {"lr_scheduler_type": "one_cycle"}}
    assert "lr_scheduler_kwargs" in before["training"]
