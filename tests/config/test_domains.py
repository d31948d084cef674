"""A setting that means nothing for the data of a recipe is refused when the recipe is loaded."""

import pytest

from hf_accel.config.domains import MULTI_LABEL, OF_IMAGES, OF_ONE_CLASS, OF_TEXTS
from hf_accel.config.recipe import load_recipe
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import training_types
from hf_accel.errors import UserError

TEXT = {"task": "text-classification"}


def loaded(folder, model, data, training=None):
    path = folder / "mine.yaml"
    path.write_text("model: {name: x}\ndata: {name: y}\n", "utf-8")
    return load_recipe(path, overrides={"model": model, "data": data, "training": training or {}})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.channels_last", True),
        ("model.whiten_stem", True),
        ("model.fit_head", True),
        ("data.image_size", 224),
        ("data.image_column", "img"),
        ("data.labels", "labels.csv"),
        ("data.transforms", "loader"),
        ("data.on_bad_image", "skip"),
        ("data.augment", {"flip": True}),
        ("data.progressive_resizing", {"start": 128}),
        ("data.test_time_augmentation", "flip"),
        ("data.streaming", True),
        ("data.shuffle_buffer", 100),
    ],
)
def test_a_setting_for_images_is_refused_for_texts_by_name(setting, value, tmp_path):
    section, name = setting.split(".")
    patch = {"model": dict(TEXT), "data": {}}
    patch[section] |= {name: value}
    with pytest.raises(UserError, match=rf"mine.yaml: {setting} is a setting for images, and model.task is text"):
        loaded(tmp_path, **patch)


@pytest.mark.parametrize(
    ("setting", "sections"),
    [("training.quantization", {"training": {"quantization": {}}}), ("compress", {"compress": {"formats": ["int8"]}})],
)
def test_int8_files_of_texts_are_refused_by_name(setting, sections, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: x, task: text-classification}\ndata: {name: y}\n", "utf-8")
    with pytest.raises(UserError, match=f"mine.yaml: {setting} is for ONNX files of image classifiers, and model.task"):
        load_recipe(path, overrides=sections)


@pytest.mark.parametrize("setting", ["text_column: content", "max_length: 64", "on_bad_text: skip"])
def test_a_setting_for_texts_is_refused_for_images_by_name(setting, tmp_path):
    name, value = setting.split(": ")
    data = {name: 64 if value == "64" else value}
    with pytest.raises(UserError, match=rf"data.{name} is a setting for texts, and model.task is image"):
        loaded(tmp_path, {}, data)


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("image-classification", {}, "group_by_length, and images have no length"),
        ("text-classification", {"cache": "none"}, "the lengths of texts are known only where their tokens are kept"),
    ],
)
def test_groups_by_length_need_texts_whose_tokens_are_kept(task, data, message, tmp_path):
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, {"task": task}, data, {"train_sampling_strategy": "group_by_length"})


def test_tokens_are_not_kept_on_the_device(tmp_path):
    with pytest.raises(
        UserError, match=r"data.cache is device, which keeps images of one size. For texts set it to memory"
    ):
        loaded(tmp_path, TEXT, {"cache": "device"})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.teacher", "./teacher"),
        ("model.fit_head", True),
        ("model.sure_precision", 0.9),
        ("data.layout", "classes"),
        ("data.streaming", True),
        ("data.sampling", "balanced"),
        ("data.hard_examples", {}),
        ("training.focal_gamma", 2.0),
        ("training.generalized_cross_entropy", 0.5),
        ("training.distillation_weight", 0.5),
        ("training.distillation_temperature", 2.0),
        ("training.quantization", {}),
    ],
)
def test_a_setting_for_rows_of_one_class_is_refused_for_several_labels_by_name(setting, value, tmp_path):
    section, name = setting.split(".")
    sections = {"model": {"task": MULTI_LABEL}, "data": {}, "training": {}}
    sections[section] |= {name: value}
    with pytest.raises(UserError, match=rf"{setting} is for images of one class each, and model.task is {MULTI_LABEL}"):
        loaded(tmp_path, **sections)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_images_with_several_labels_are_not_mixed(name, tmp_path):
    with pytest.raises(UserError, match=rf"data.augment.{name} is for images of one class each"):
        loaded(tmp_path, {"task": MULTI_LABEL}, {"augment": {name: 0.5, "flip": True}})


def test_files_for_onnx_of_several_labels_and_settings_for_texts_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: {{name: x, task: {MULTI_LABEL}}}\ndata: {{name: y}}\n", "utf-8")
    with pytest.raises(UserError, match=r"compress is for images of one class each, and model.task"):
        load_recipe(path, overrides={"compress": {"formats": ["int8"]}})
    with pytest.raises(UserError, match=r"data.max_length is a setting for texts, and model.task is multi-label"):
        load_recipe(path, overrides={"data": {"max_length": 9}})


@pytest.mark.parametrize("task", ["image-classification", "text-classification"])
def test_several_label_columns_are_of_several_labels(task, tmp_path):
    with pytest.raises(UserError, match=rf"data.label_column names several columns, and of {task} each row has one"):
        loaded(tmp_path, {"task": task}, {"label_column": ["a", "b"]})
    assert loaded(tmp_path, {"task": MULTI_LABEL}, {"label_column": ["a", "b"]}).data.label_column == ["a", "b"]


def test_each_task_selects_by_its_own_figures(tmp_path):
    held = {"validation": 0.1}
    chosen = {"metric_for_best_model": "mean_average_precision"}
    assert loaded(tmp_path, {"task": MULTI_LABEL}, held, chosen)
    with pytest.raises(UserError, match="'mean_average_precision', which is not computed here"):
        loaded(tmp_path, {}, held, chosen)
    with pytest.raises(UserError, match="'top5_accuracy', which is not computed here"):
        loaded(tmp_path, {"task": MULTI_LABEL}, held, {"metric_for_best_model": "top5_accuracy"})


@pytest.mark.parametrize("task", ["image-classification", MULTI_LABEL, "text-classification"])
def test_a_recipe_that_is_written_whole_can_be_read_again(task, tmp_path):
    recipe = loaded(tmp_path, {"task": task}, {"augment": {"crop": "none"}})
    recipe.write(tmp_path / "whole.yaml")
    assert load_recipe(tmp_path / "whole.yaml") == recipe


def test_the_listed_settings_exist():
    for settings in (OF_IMAGES, OF_TEXTS):
        for section, names in settings.items():
            assert set(names) <= set(SECTIONS[section].__dataclass_fields__)
    for section, names in OF_ONE_CLASS.items():
        known = training_types() if section == "training" else SECTIONS[section].__dataclass_fields__
        assert set(names) <= set(known)
