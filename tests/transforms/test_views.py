"""Test-time augmentation: the views, their mean, and where it is applied and said."""

import json
from functools import partial

import pytest
import torch
from torch.nn import functional

from hf_accel import evaluate
from hf_accel.hub.card import write_card
from hf_accel.predict import main as predict_main
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.run_report import RunReport
from hf_accel.tasks.image_inputs import over_views
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from hf_accel.transforms.views import mean_logits, views

pytestmark = pytest.mark.slow


def test_a_flip_is_the_image_and_its_mirror_image():
    images = torch.rand(2, 3, 4, 5)
    (first, plain), (second, mirrored) = views(images, "flip")
    assert first == second == 0.5
    assert torch.equal(plain, images)
    assert torch.equal(mirrored[..., 0], images[..., -1])


def test_a_shifted_view_is_moved_by_one_pixel_and_reflected_at_the_border():
    image = torch.arange(9.0).view(1, 1, 3, 3)  # 0 1 2 / 3 4 5 / 6 7 8
    weighted = views(image, "flip_shift")
    assert [weight for weight, _ in weighted] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    up_left, mirrored, down_right = (weighted[i][1][0, 0].tolist() for i in (2, 3, 4))
    assert up_left == [[4, 3, 4], [1, 0, 1], [4, 3, 4]]
    assert mirrored == [row[::-1] for row in up_left]
    assert down_right == [[4, 5, 4], [7, 8, 7], [4, 5, 4]]


def test_one_view_is_the_image_itself():
    images = torch.rand(2, 3, 4, 4)
    assert mean_logits(lambda view: view.flatten(1), images, "none").equal(images.flatten(1))


def by_hand(model, images, kind):
    """The mean as cifar10-airbench defines it."""

    def mirror_mean(x):
        return (model(x).logits + model(x.flip(3)).logits) / 2

    if kind == "none":
        return model(images).logits
    if kind == "flip":
        return mirror_mean(images)
    size = images.shape[2]
    padded = functional.pad(images, (1, 1, 1, 1), "reflect")
    shifted = [padded[:, :, :size, :size], padded[:, :, 2 : size + 2, 2 : size + 2]]
    return mirror_mean(images) / 2 + sum(mirror_mean(x) for x in shifted) / 4


@pytest.mark.parametrize("kind", ["none", "flip", "flip_shift"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_scores_come_from_the_mean_of_the_logits(kind, channels_last, tiny_recipe):
    recipe = tiny_recipe({"data": {"test_time_augmentation": kind}, "model": {"channels_last": channels_last}})
    trainer = build_trainer(recipe)
    predictions = trainer.score(trainer.test_dataset)
    top_ids, confidence, losses, rows = predictions.predictions
    images = trainer.eval_transform(trainer.test_dataset.__getitems__(rows.tolist()))
    with torch.no_grad():
        logits = by_hand(trainer.model, images["pixel_values"], kind)
    assert torch.equal(torch.from_numpy(top_ids), logits.topk(2).indices)
    torch.testing.assert_close(torch.from_numpy(confidence), logits.softmax(1).amax(1))
    expected = functional.cross_entropy(logits, images["labels"], reduction="none")
    torch.testing.assert_close(torch.from_numpy(losses), expected)
    batch = trainer.test_dataset.__getitems__(range(8))
    loss, *_ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
    torch.testing.assert_close(loss, expected.mean())


def test_without_it_the_model_sees_every_image_once(tiny_recipe):
    trainer = build_trainer(tiny_recipe())
    calls = []
    trainer.model.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.evaluate()
    assert len(calls) == 1
    assert not any("test-time" in note for note in trainer.notes)
    trainer.scoring_model = partial(over_views, "flip_shift")
    trainer.evaluate()
    assert len(calls) == 1 + 6


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A finished run that was scored with test-time augmentation, made once for this file."""
    from hf_accel.config.recipe import apply_patch, load_recipe
    from tests.conftest import TINY, write_photos

    place = tmp_path_factory.mktemp("flipped")
    patch = {"data": {"name": str(write_photos(place)), "test_time_augmentation": "flip"},
             "training": {"output_dir": str(place / "run"), "num_train_epochs": 2}}  # fmt: skip
    return train(load_recipe("finetune", overrides=apply_patch(TINY, patch)))


def test_report_table_page_and_card_say_how_the_figures_were_made(flipped):
    report = RunReport.load(flipped)
    (note,) = report.score_notes
    assert "mean of the logits over 2 views" in note
    assert "Test-time augmentation: flip" in report.table()
    assert (flipped / "report.html").read_text().count(
        "est-time augmentation: flip"
    ) == 2  # by the scores, and in the notes
    card = write_card(FinishedRun.read(flipped)).read_text()
    head, body = card.split("\n---\n", 1)
    summary = next(line for line in body.splitlines() if "**Accuracy" in line)
    assert "with test-time augmentation" in summary
    assert "Test-time augmentation: flip" in body.split("## Results")[1].split("##")[0]
    assert head.count("test_time_augmentation: flip") == 2  # next to each metric of model-index
    assert "--data.test_time_augmentation flip" in (flipped / "model" / "notebook.ipynb").read_text()


def test_evaluate_repeats_the_figures_of_the_run_and_says_how_they_were_made(flipped, capsys):
    report = RunReport.load(flipped)
    evaluate.main([str(flipped), "--format", "json"])
    scores = json.loads(capsys.readouterr().out)
    assert scores["loss"] == pytest.approx(report.test.loss, rel=1e-5)
    assert scores["test_time_augmentation"] == "flip"
    evaluate.main([str(flipped), "--data.test_time_augmentation", "none"])
    assert "augmentation" not in capsys.readouterr().out
    evaluate.main([str(flipped), "--data.test_time_augmentation", "flip_shift"])
    assert "test-time augmentation: flip_shift" in capsys.readouterr().out.splitlines()[0]


def test_photographs_of_many_sizes_are_scored_too(flipped, photos, capsys):
    evaluate.main(
        [str(flipped), "--data.name", str(photos), "--data.test_time_augmentation", "flip_shift", "--format", "json"]
    )
    assert json.loads(capsys.readouterr().out)["rows"] == 8


def test_predict_takes_it_too(flipped, photos, capsys):
    from PIL import Image

    from hf_accel.models.load import load_trained

    loaded = load_trained(flipped / "model")
    file = photos / "test" / "red" / "00.png"
    inputs = loaded.processor(images=Image.open(file), return_tensors="pt")
    with torch.no_grad():
        expected = by_hand(loaded.model, inputs["pixel_values"], "flip_shift").softmax(1).amax().item()
    predict_main([str(flipped), str(file), "--test_time_augmentation", "flip_shift", "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["labels"][0]["score"] == pytest.approx(expected, abs=1e-5)
