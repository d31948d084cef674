import dataclasses

import pytest

from hf_accel.config.augmentation import AugmentSettings, ChainedOperation, ColorJitter, RandAugment
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import DataSettings, ProgressiveResizing
from hf_accel.errors import UserError
from hf_accel.evaluate import evaluation_recipe

NO_SELECTION = {"data": {"validation": 0}}


def refusal(overrides, recipe="digits", variant=None) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, variant, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data": {"cache": "device", "transforms": "loader"}}, "data.transforms is loader and data.cache is device"),
        ({"data": {"streaming": True, "cache": "disk"}}, "keeps no decoded image, and data.cache is disk"),
        ({"data": {"streaming": True, "sampling": "balanced"}}, "Set data.class_weights: balanced instead"),
        (
            {"data": {"streaming": True, "hard_examples": {"fraction": 0.3}}},
            "data.hard_examples takes training rows from",
        ),
        ({"data": {"streaming": True, "max_train_rows": 10}}, "Set training.max_steps instead"),
        ({"data": {"streaming": True}, "model": {"whiten_stem": True}}, "model.whiten_stem takes training rows from"),
        ({"data": {"split_column": "part"}}, "data.split_column is a column of data.labels, which is not set"),
        ({"data": {"labels": "x.csv", "layout": "classes"}}, "data.labels names the classes, and data.layout: classes"),
        ({"data": {"fold": 1}}, "data.fold is one of the parts of data.folds, which is not set"),
        ({"data": {"folds": 3, "fold": 3}}, "data.fold is 3, expected 0 to 2 for data.folds: 3"),
        ({"data": {"streaming": True, "folds": 3}}, "data.folds takes training rows from all over"),
        ({"data": {"shuffle_buffer": 9}}, "data.shuffle_buffer has no effect without data.streaming"),
        (
            {"training": {"auto_find_batch_size": True, "optim": "lomo"}},
            "optim: lomo changes the weights in the middle of it",
        ),
        (
            {"training": {"auto_find_batch_size": True, "ddp_static_graph": True}},
            "ddp_static_graph promises that all steps have as many",
        ),
        ({"training": {"fp16": True, "bf16": True}}, "training.fp16 and training.bf16 are both true"),
        (NO_SELECTION | {"training": {"early_stopping_patience": 2}}, "early_stopping_patience needs validation rows"),
        (NO_SELECTION | {"training": {"eval_strategy": "steps"}}, "training.eval_strategy is 'steps' but there are no"),
        (
            {"training": {"optim": "muon", "optim_args": "momentun=1"}},
            "muon takes no 'momentun'. Did you mean momentum",
        ),
        (
            {"training": {"optim": "muon", "optim_args": "momentum=1"}},
            "momentum is '1', expected a number from 0 to below",
        ),
        (
            {"training": {"optim": "adamw_torch", "optim_args": "momentum=0.9"}},
            "training.optim_args is 'momentum=0.9', which has no effect with optim: adamw_torch",
        ),
        ({"training": {"optim_args": "foo"}}, "which has no effect with optim: adamw_torch_fused"),
        ({"training": {"optim": {"name": 3}, "optim_args": "foo"}}, "training.optim"),
        ({"training": {"optim": "sgd", "optim_args": "momentun=1"}}, "sgd takes no 'momentun'. Did you mean momentum"),
        ({"training": {"optim": "sgd", "optim_args": "momentum=x"}}, "momentum is 'x', expected a number"),
        ({"training": {"optim": "rmsprop", "optim_args": "centered=2"}}, "centered is '2', expected true or false"),
        ({"model": {"name": "hf_accel/cifar_resnet20", "pretrained": True}}, "has no pretrained weights"),
        (
            {"data": {"augment": {"randaugment": {"magnitude": 31}}}},
            "data.augment.randaugment.magnitude is 31, expected a whole number from 0 to 30",
        ),
        (
            {"data": {"augment": {"color_jitter": {"hue": 0.6}}}},
            "data.augment.color_jitter.hue is 0.6, expected a number from 0 to 0.5",
        ),
        (
            {"data": {"progressive_resizing": {"full_at": 0.5}}},
            "data.progressive_resizing: has no start, expected a whole number of pixels, at least 4",
        ),
        (
            {"data": {"class_weights": [1, -1]}},
            'data.class_weights is [1, -1], expected "balanced", a list of numbers from 0 or null',
        ),
        (
            {"data": {"augment": {"rotation": {"degrees": [10, -10]}}}},
            "data.augment.rotation.degrees is [10, -10], expected an angle from 0 to 360, for -angle to angle, or two",
        ),
        (
            {"data": {"augment": {"affine": {"shear": [1, 2, 4, 3]}}}},
            "data.augment.affine.shear is [1, 2, 4, 3], expected an angle from 0, below 90, or two or four angles",
        ),
        (
            {"data": {"augment": {"blur": {"kernel_size": 4}}}},
            "data.augment.blur.kernel_size is 4, expected an odd whole number from 3 to 255",
        ),
        (
            {"data": {"augment": {"chain": {"p": 1}}}},
            "data.augment.chain: has no operations, expected a list of 1 to 16 operations",
        ),
        (
            {"data": {"augment": {"chain": {"operations": [{"invert": {}}, {"rotaton": {"degrees": 1}}]}}}},
            "data.augment.chain.operations.1.rotaton is not a setting. Did you mean rotation?",
        ),
        (
            {"data": {"augment": {"chain": {"operations": [{"rotation": {}}]}}}},
            "data.augment.chain.operations.0.rotation: has no degrees, expected an angle",
        ),
        (
            {"data": {"augment": {"chain": {"operations": [{"invert": {}, "blur": {}}]}}}},
            "data.augment.chain.operations.0 is {'invert': {}, 'blur': {}}, expected a mapping of exactly one of",
        ),
        (
            {"data": {"augment": {"chain": {"operations": ["invert"]}}}},
            "data.augment.chain.operations.0 is 'invert', expected a mapping of exactly one of color_jitter,",
        ),
        ({"data": {"max_pixels": 0}}, "data.max_pixels is 0, expected a whole number from 1 or null"),
        ({"data": {"augment": {"flip": "sometimes"}}}, "is 'sometimes', expected true, false or \"alternating\""),
        ({"data": {"augment": {"scale": [0.5]}}}, "data.augment.scale is [0.5], expected two rising numbers above 0"),
        ({"training": {"distillation_weight": 0.5}}, "training.distillation_weight has no effect without a teacher"),
        ({"training": {"distillation_temperature": 0}}, "distillation_temperature is 0, expected a number above 0, at"),
        (
            {"data": {"sampling": "balanced", "class_weights": "balanced"}},
            "data.sampling and data.class_weights are both balanced",
        ),
        ({"data": {"sampling": "balanced", "hard_examples": {}}}, "each chooses the rows of an epoch"),
        (
            {"data": {"hard_examples": {}, "augment": {"cutmix": 1.0}}},
            "data.hard_examples needs the loss of each image, and data.augment.cutmix blends two images",
        ),
        (
            {"data": {"hard_examples": {"fraction": 1.0}}},
            "data.hard_examples.fraction is 1.0, expected a number above 0 and below 1",
        ),
        (
            {"training": {"sparsity": {}}},
            "training.sparsity has neither final nor pattern. Set training.sparsity.final",
        ),
        ({"training": {"sparsity": {"final": 0.5, "pattern": "2:4"}}}, "which sets the sparsity itself. Leave one out"),
        (
            {"training": {"sparsity": {"final": 0.5, "schedule": "constant", "end": 0.5}}},
            "training.sparsity.end has no effect with schedule: constant",
        ),
        (
            {"training": {"sparsity": {"final": 0.5, "schedule": "constant", "updates": 5}}},
            "training.sparsity.updates has no effect with schedule: constant",
        ),
        (
            {"training": {"sparsity": {"final": 0.5, "begin": 0.8}}},
            "training.sparsity.begin is 0.8, expected a number below training.sparsity.end, which is 0.75",
        ),
        (
            {"model": {"freeze": "backbone"}, "training": {"sparsity": {"final": 0.5}}},
            "training.sparsity has nothing to prune: model.freeze is backbone",
        ),
        ({"model": {"lora": {}}, "training": {"sparsity": {"final": 0.5}}}, "cannot be combined with model.lora"),
        (
            {"training": {"sparsity": {"final": 0.5}, "gradual_unfreezing": 0.5}},
            "training.sparsity cannot be combined with training.gradual_unfreezing",
        ),
        ({"training": {"sparsity": {"final": 1}}}, "sparsity.final is 1, expected a number above 0, below 1 or null"),
        ({"training": {"sparsity": {"pattern": "3:4"}}}, "training.sparsity.pattern is '3:4', expected"),
        (
            {"training": {"sparsity": {"final": 0.5, "exclude": [1]}}},
            "training.sparsity.exclude is [1], expected a list",
        ),
        (
            {"training": {"sparsity": {"final": 0.5, "begins": 1}}},
            "training.sparsity.begins is not a setting. Did you mean begin",
        ),
        ({"training": {"sparsity": 0.5}}, "training.sparsity is 0.5, expected a mapping"),
        (
            {"training": {"quantization": {"begin": 0.8}}},
            "training.quantization.begin is 0.8, expected a number below training.quantization.freeze, which is 0.75",
        ),
        (
            {"training": {"quantization": {}, "torch_compile": True}},
            "training.quantization cannot be combined with torch_compile: true",
        ),
        ({"training": {"quantization": {}}, "model": {"lora": {}}}, "cannot be combined with model.lora"),
        ({"training": {"quantization": {}}, "model": {"freeze": "backbone"}}, "cannot be combined with model.freeze"),
        ({"training": {"quantization": "int8"}}, "training.quantization is 'int8', expected a mapping"),
        ({"training": {"report_to": [1]}}, "training.report_to is [1], expected text, a list of values or null"),
    ],
)
def test_contradictions_in_a_recipe_are_refused_at_load(overrides, message):
    assert message in refusal(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"data": {"sampling": "balanced", "class_weights": [1] * 10}},
        {"data": {"hard_examples": {"strategy": "hardest"}, "class_weights": "balanced", "augment": {"mixup": 0}}},
        {"model": {"teacher": "./somewhere"}, "training": {"distillation_weight": 1}},
        {"training": {"distillation_weight": 0}},
    ],
)
def test_what_chooses_rows_or_teaches_is_accepted_with_the_rest(overrides):
    load_recipe("digits", overrides=overrides)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 19),
        ({"hard_examples": {}}, 19),
        ({"hard_examples": {"strategy": "hardest", "fraction": 0.5}}, 10),
        ({"hard_examples": {"strategy": "hardest", "fraction": 0.001}}, 1),
    ],
)
def test_only_epochs_of_the_hardest_rows_are_shorter(settings, expected):
    assert DataSettings(name="digits", **settings).rows_of_epoch(19) == expected


def test_contradictions_and_wrong_values_are_reported_together():
    training = {"fp16": True, "bf16": True, "seed": -1, "optim": "muon", "optim_args": "x=1"}
    assert len(refusal({"training": training, "data": {"cache": "ram"}}).splitlines()) == 4


def test_a_setting_may_contradict_one_that_a_variant_replaces():
    patch = {"data": {"validation": 0, "transforms": "loader", "cache": "device"}}
    assert "loader" in refusal(patch)
    assert load_recipe("digits", "baseline", {"data": {"validation": 0}}).data.cache == "none"


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\\b", "..", ".", " ", "a\nb", "\x1b[2J", "x" * 300, True, [1]])
def test_a_name_that_no_folder_can_have_is_refused(name):
    assert "name is" in refusal({"name": name})
    assert "variant is" in refusal({"variant": name})
    assert "a variant is called" in refusal({"variants": {name: {}}}) if isinstance(name, str) else True


def test_a_name_outside_ascii_is_accepted():
    assert load_recipe("digits", overrides={"name": "Blüte 2"}).output_dir.parts == ("outputs", "Blüte 2", "default")


def test_evaluating_other_data_does_not_ask_for_the_validation_rows_of_training(tmp_path):
    training = {"early_stopping_patience": 2, "eval_strategy": "epoch"}
    (tmp_path / "model").mkdir()
    load_recipe("digits", overrides={"training": training}).write(tmp_path / "recipe.yaml")
    assert evaluation_recipe(str(tmp_path), {"data": {"name": "other"}}).data.validation == 0
    assert evaluation_recipe(str(tmp_path), {}).data.validation == 0.1


def test_the_operations_of_a_chain_are_those_of_its_message():
    names = [field.name for field in dataclasses.fields(ChainedOperation)]
    assert f"exactly one of {', '.join(names)}" in refusal({"data": {"augment": {"chain": {"operations": []}}}})


def test_an_operation_of_a_chain_stays_a_mapping_of_one_name(tmp_path):
    chain = {"p": 0.25, "operations": [{"rotation": {"degrees": [-10, 20]}}, {"invert": {}}]}
    recipe = load_recipe("digits", overrides={"data": {"augment": {"chain": chain}}})
    kept = recipe.to_dict()["data"]["augment"]["chain"]
    assert kept["operations"] == [{"rotation": {"degrees": [-10, 20], "p": 1.0}}, {"invert": {"p": None}}]
    recipe.write(tmp_path / "mine.yaml")
    assert load_recipe(tmp_path / "mine.yaml").data == recipe.data


def test_settings_that_change_an_image_are_listed_without_those_that_do_nothing():
    assert AugmentSettings().switched_on() == {}
    assert AugmentSettings(pad=3, scale=[0.5, 1.0]).switched_on() == {}
    assert AugmentSettings(crop="pad", invert={}).switched_on() == {
        "crop": "pad", "pad": 4, "pad_mode": "reflect", "invert": {}
    }  # fmt: skip
    resized = AugmentSettings(crop="random_resized", flip="alternating", mixup=0.2).switched_on()
    assert list(resized) == ["crop", "scale", "ratio", "flip", "mixup"]


def test_settings_that_are_mappings_have_their_defaults_in_one_place():
    augment = AugmentSettings(randaugment={}, color_jitter={"hue": 0.1})
    assert augment.randaugment == RandAugment(num_ops=2, magnitude=9)
    assert augment.color_jitter == ColorJitter(hue=0.1)
    resizing = DataSettings("digits", progressive_resizing={"start": 8.0}).progressive_resizing
    assert resizing == ProgressiveResizing(start=8, full_at=0.75)
    assert isinstance(resizing.start, int)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AugmentSettings().crop = "pad"
