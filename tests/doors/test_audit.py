"""`hf-accel audit`: wrong labels of a folder are found, listed and shown."""

import csv
import json

import numpy as np
import pytest

from hf_accel.audit import main
from hf_accel.errors import UserError
from hf_accel.training.out_of_fold import parts_of
from tests.support.saved_models import save_timm

pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path):
    """Random weights tell colours apart, too."""
    return save_timm(tmp_path / "network", "cifar_resnet20", ["x", "y", "z"], depth=8, width=16)


@pytest.fixture
def flipped(photos):
    """Two of the 24 photographs, each in the folder of the other class."""
    (photos / "train" / "red" / "03.png").rename(photos / "train" / "blue" / "wrong.png")
    (photos / "train" / "blue" / "05.png").rename(photos / "train" / "red" / "wrong.png")
    return photos


def rows(folder):
    return list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))


def test_wrong_labels_come_first_in_the_table_and_are_shown(flipped, network, tmp_path, capsys):
    output = tmp_path / "audit"
    assert (
        main([str(flipped), "--model.name", str(network), "--output_dir", str(output), "--folds", "4", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["page"]) == (24, str(output / "labels.html"))
    first = rows(output)[:2]
    assert {(row["file"], row["suggested"], row["found"]) for row in first} == {
        ("train/blue/wrong.png", "red", "yes"),
        ("train/red/wrong.png", "blue", "yes"),
    }
    assert len(rows(output)) == 24
    page = (output / "labels.html").read_text()
    assert "train/blue/wrong.png" in page
    assert page.count("<img") == document["found"]
    assert str(tmp_path) not in (output / "labels.csv").read_text() + page
    with pytest.raises(UserError, match="holds an audit, which is kept"):
        main([str(flipped), "--model.name", str(network), "--output_dir", str(output)])


def test_the_whole_recipe_can_be_trained_for_each_part(flipped, network, tmp_path, capsys):
    output = tmp_path / "audit"
    settings = ["--model.name", str(network), "--per_device_train_batch_size", "8", "--num_train_epochs", "4",
                "--bf16", "false", "--model.freeze_batch_norm", "false"]  # fmt: skip
    assert main([str(flipped), "--retrain", "--folds", "2", "--output_dir", str(output), *settings]) == 0
    assert "Judged by training the recipe finetune, in 2 parts" in " ".join(capsys.readouterr().out.split())
    assert len(rows(output)) == 24


def test_a_network_that_was_trained_for_these_classes_cannot_judge_them(photos, tmp_path):
    network = save_timm(tmp_path / "network", "cifar_resnet20", ["blue", "red"], depth=8, width=4)
    with pytest.raises(UserError, match="is not a pretrained network with other classes"):
        main([str(photos), "--model.name", str(network), "--output_dir", str(tmp_path / "audit")])


@pytest.mark.parametrize(
    ("flags", "message"), [(["--folds", "1"], "at least 2"), (["--folds", "20"], "40 images or more")]
)
def test_too_few_parts_or_images_are_refused(photos, tmp_path, network, flags, message):
    with pytest.raises(UserError, match=message):
        main([str(photos), "--model.name", str(network), "--output_dir", str(tmp_path / "audit"), *flags])


def test_every_class_is_spread_evenly_over_the_parts():
    labels = np.repeat([0, 1, 2], [40, 7, 3])
    parts = parts_of(labels, 5, seed=1)
    for label in range(3):
        counts = np.bincount(parts[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (parts != parts_of(labels, 5, seed=2)).any()
