"""`hf-accel recipe show NAME --augmented FOLDER`: what training is given, as a picture."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe
from hf_accel.recipe import main
from hf_accel.tasks import TASKS
from hf_accel.training.build import build_trainer

CHAIN = [{"rotation": {"degrees": 30}}, {"invert": {"p": 0.5}}]


def test_the_picture_has_a_row_for_each_image_and_the_labels_of_mixtures(recipe_file, tmp_path, capsys):
    recipe = recipe_file({"data": {"augment": {"crop": "pad", "mixup": 1.0, "chain": {"operations": CHAIN}}}})
    assert run(main, ["show", recipe, "--augmented", str(tmp_path / "new" / "sheet"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["labels"] == ["blue"] * 4 + ["red"] * 4
    assert document["augment"]["chain"]["operations"][1] == {"invert": {"p": 0.5}}
    with PIL.Image.open(document["path"]) as picture:
        assert picture.format == "PNG"
        assert picture.size == (8 * 128 + 7 * 8 + 2 * 16, picture.height)  # images of 16 px, eight times as large
        assert picture.height > 8 * 128
    # again: the picture of before is replaced
    assert run(main, ["show", recipe, "--augmented", str(tmp_path / "new" / "sheet"), "--seed", "1", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{document['path']}\n"


@pytest.mark.parametrize("transforms", ["device", "loader"])
def test_a_sample_is_what_training_is_given(transforms, tiny_recipe):
    augment = {"crop": "random_resized", "flip": True, "mixup": 1.0, "chain": {"operations": CHAIN}}
    recipe = tiny_recipe({"data": {"transforms": transforms, "augment": augment}, "training": {"seed": 5}})
    splits = TASKS["image-classification"].open_splits(recipe.data, 5)
    rows, notes = TASKS["image-classification"].augmented_images(recipe, splits, 5, num_rows=3, num_epochs=2)
    trainer = build_trainer(recipe, splits)
    of_training = {}
    for epoch in range(2):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        for batch in loader:
            numbers = batch["rows"].tolist()
            given = trainer.train_dataset.complete(batch)
            given = given if transforms == "loader" else trainer.train_transform(given)
            of_training |= {(epoch, row): image for row, image in zip(numbers, given["pixel_values"], strict=True)}
    mean, std = (torch.tensor(trainer.processing_class.data_config[name]) for name in ("mean", "std"))
    for row, shown in zip(sample_rows(splits), rows, strict=True):
        for epoch in range(2):
            levels = (of_training[epoch, row].permute(1, 2, 0) * std + mean) * 255
            assert np.abs(levels.clamp(0, 255).numpy() - shown.samples[epoch]).max() <= 0.51
    assert not notes
    assert any(" + " in label for shown in rows for label in shown.sample_labels)


def sample_rows(splits):
    from hf_accel.tasks.gallery import sample_rows

    return sample_rows(splits.train, 3, 5)


def test_a_recipe_without_augmentation_says_so(recipe_file, tmp_path, capsys):
    recipe = recipe_file({"data": {"augment": {"crop": "none", "flip": False}}})
    assert run(main, ["show", recipe, "--augmented", str(tmp_path / "sheet")]) == 0
    assert "finetune has no augmentation: every sample is the image itself" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--data.name", "./nowhere"], "nowhere"),
        (["--data.augment.rotation.degrees", "x"], "data.augment.rotation.degrees is 'x'"),
        (["--model.name", "google/vit-base-patch16-224-in21k", "--model.pretrained", "true", "--data.image_size", "32"],
         "is not on this machine and cannot be fetched from the Hub"),
    ],
)  # fmt: skip
def test_data_and_preprocessing_that_cannot_be_had_are_said_and_nothing_is_written(
    overrides, message, recipe_file, tmp_path, capsys
):
    recipe = recipe_file()
    assert run(main, ["show", recipe, "--augmented", str(tmp_path / "sheet"), *overrides]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "sheet").exists()


def test_a_folder_with_other_files_and_a_file_are_refused(recipe_file, photos, tmp_path, capsys):
    recipe = recipe_file()
    assert run(main, ["show", recipe, "--augmented", str(photos)]) == 2
    assert "holds other files (test, ...)" in " ".join(capsys.readouterr().err.split())
    assert run(main, ["show", recipe, "--augmented", recipe]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run(main, ["show", recipe, "--augmented", f"{recipe}/sheet"]) == 2
    assert "cannot be written: Not a directory" in " ".join(capsys.readouterr().err.split())


def test_settings_on_the_command_line_change_what_is_shown(recipe_file, capsys):
    recipe = recipe_file()
    assert main(["show", recipe, "--data.augment.trivial_augment", "{}", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(
        json.dumps(load_recipe(recipe, overrides={"data": {"augment": {"trivial_augment": {}}}}).to_dict())
    )
    assert main(["--quiet", "show", "digits", "--variant", "fp16", "--seed", "3"]) == 0
    assert "seed: 3" in capsys.readouterr().out
