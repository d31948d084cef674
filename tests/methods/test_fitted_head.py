import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from hf_accel.inputs.features import FeatureBatches
from hf_accel.methods import fitted_head
from hf_accel.methods.fitted_head import FittedHead, fit_classifier
from hf_accel.models.head import head_parameters
from hf_accel.models.head_split import HeadSplit
from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.saved_models import save_timm
from tests.support.two_processes import train_in_two_processes

CLASSES, NUMBERS = 3, 8


@pytest.fixture
def fitted_recipe(tiny_recipe, tmp_path):
    """A recipe that fits a new classifier on a network that was trained for other classes."""
    save_timm(tmp_path / "pretrained", "cifar_resnet20", ["a", "b", "c"], depth=8, width=4)

    def make(*patches):
        model = {"name": str(tmp_path / "pretrained"), "pretrained": True, "fit_head": True}
        return tiny_recipe({"model": model, "training": {"num_train_epochs": 2, "logging_steps": 1}}, *patches)

    return make


def methods_of(trainer):
    return [method for method in trainer.methods if isinstance(method, FittedHead)]


def note_of(trainer):
    return next(note for note in trainer.notes if note.startswith("fit_head: "))


def head_of(trainer):
    return [parameter.detach().clone() for parameter in head_parameters(trainer.model)]


def features_of_three_classes(rows=120):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(CLASSES, NUMBERS, generator=generator)
    return centres[labels] + torch.randn(rows, NUMBERS, generator=generator), labels


def linear_split():
    head = nn.Linear(NUMBERS, CLASSES)
    return HeadSplit(head, head, 0.0, (NUMBERS,))


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
def test_the_fit_is_the_logistic_regression_of_scikit_learn(weights):
    features, labels = features_of_three_classes()
    split = linear_split()
    penalty = fit_classifier(split, features, labels, None if weights is None else torch.tensor(weights))
    of_rows = np.ones(len(labels)) if weights is None else np.array(weights)[labels.numpy()]
    expected = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000)
    expected.fit(features.numpy(), labels.numpy(), sample_weight=of_rows / of_rows.sum())
    found = split.head(features).softmax(-1).detach().numpy()
    np.testing.assert_allclose(found, expected.predict_proba(features.numpy()), atol=2e-3)


def test_the_penalty_is_the_one_that_predicts_held_out_rows_best():
    features, labels = features_of_three_classes()
    easy = fit_classifier(linear_split(), features, labels)
    wrong = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    assert fit_classifier(linear_split(), features, wrong) > easy


def test_the_fit_does_not_depend_on_the_scale_of_the_features():
    features, labels = features_of_three_classes()
    answers = []
    for scale in (1.0, 30.0):
        split = linear_split()
        fit_classifier(split, scale * features, labels)
        answers.append(split.head(scale * features).argmax(-1))
    assert (answers[0] == answers[1]).float().mean() > 0.97


def test_the_classifier_is_fitted_before_the_first_step_and_the_backbone_left_alone(fitted_recipe):
    still = {
        "training": {"learning_rate": 0.0, "weight_decay": 0.0, "max_steps": 1},
        "model": {"freeze_batch_norm": True},
    }
    trainer = build_trainer(fitted_recipe(still))
    inner = {name: value.clone() for name, value in trainer.model.state_dict().items() if "fc" not in name}
    start, random_loss = head_of(trainer), trainer.evaluate(trainer.test_dataset)["eval_loss"]
    trainer.train()
    assert not any(torch.equal(a, b) for a, b in zip(start, head_of(trainer), strict=True))
    assert all(torch.equal(value, trainer.model.state_dict()[name]) for name, value in inner.items())
    assert trainer.evaluate(trainer.test_dataset)["eval_loss"] < random_loss
    assert note_of(trainer) == "fit_head: the classifier starts as a logistic regression on 19 training images"


def steps_of_evaluations(trainer):
    return [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]


def test_the_fit_is_scored_before_the_first_step_and_not_again_by_a_resumed_run(fitted_recipe, tmp_path):
    whole = build_trainer(fitted_recipe())
    whole.train()
    assert steps_of_evaluations(whole) == [0, 3, 6]
    resumed = build_trainer(fitted_recipe())
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert steps_of_evaluations(resumed) == [0, 3, 6]


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {"validation": 0}},
        {"training": {"eval_strategy": "no"}},
        {"training": {"eval_on_start": False}},
    ],
)
def test_nothing_is_scored_at_the_start_where_nothing_is_scored_or_the_user_does_not_want_it(patch, fitted_recipe):
    assert not build_trainer(fitted_recipe(patch)).args.eval_on_start


def test_the_time_of_the_fit_counts_as_training(fitted_recipe):
    report = RunReport.load(train(fitted_recipe()))
    assert 0 < report.train.feature_seconds < report.train.seconds
    assert any(note.startswith("fit_head: ") for note in report.notes)


def test_a_large_training_split_is_read_in_part(fitted_recipe, monkeypatch):
    monkeypatch.setattr(fitted_head, "MAX_ROWS", 7)
    trainer = build_trainer(fitted_recipe())
    assert "on 7 training images" in note_of(trainer)
    (method,) = methods_of(trainer)
    read, own = [], type(method.images).read
    monkeypatch.setattr(type(method.images), "read", lambda self, row: read.append(row) or own(self, row))
    trainer.train()
    assert sorted(read) == [0, 3, 6, 9, 12, 15, 18]


def test_a_linear_probe_gives_its_features(fitted_recipe, monkeypatch):
    probe = {"model": {"freeze": "backbone"}, "data": {"augment": {"crop": "none", "flip": False}}}
    trainer = build_trainer(fitted_recipe(probe))
    assert isinstance(trainer.train_dataset, FeatureBatches)
    (method,) = methods_of(trainer)
    monkeypatch.setattr(method, "_features", lambda: pytest.fail("the features are computed again"))
    start = head_of(trainer)
    trainer.train()
    assert not torch.equal(start[0], head_of(trainer)[0])


def test_a_transform_of_the_callers_own_leaves_the_classifier_random_and_a_note_says_so(fitted_recipe):
    trainer = build_trainer(fitted_recipe(), eval_transform=lambda image: torch.zeros(3, 32, 32))
    assert not methods_of(trainer)
    assert "because the caller's own transform prepares the images" in note_of(trainer)


def test_a_sharded_network_cannot_be_fitted(fitted_recipe, monkeypatch):
    monkeypatch.setattr(fitted_head, "is_sharded", lambda args: True)
    trainer = build_trainer(fitted_recipe())
    assert not methods_of(trainer)
    assert "FSDP and DeepSpeed shard the network" in note_of(trainer)


@pytest.mark.parametrize("patch", [{"name": "same"}, {"pretrained": False}])
def test_a_classifier_of_the_same_classes_or_on_random_weights_is_left_as_it_is(patch, fitted_recipe, tmp_path):
    same = save_timm(tmp_path / "same", "cifar_resnet20", ["blue", "red"], depth=8, width=4)
    trainer = build_trainer(fitted_recipe({"model": patch | ({"name": str(same)} if "name" in patch else {})}))
    assert not methods_of(trainer)
    assert not [note for note in trainer.notes if note.startswith("fit_head: ")]


@pytest.mark.slow
def test_two_processes_fit_what_one_does(fitted_recipe, tmp_path):
    even = {"model": {"freeze_batch_norm": True}, "data": {"validation": 0.33, "augment": {"crop": "none"}}}

    def recipe(folder, batch):
        training = {"per_device_train_batch_size": batch, "optim": "sgd", "output_dir": str(tmp_path / folder)}
        return fitted_recipe(even, {"training": training})

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    first, second = ([row["loss"] for row in report.history if row["loss"] is not None] for report in (one, two))
    assert len(first) == 4
    assert second == pytest.approx(first, rel=1e-3)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-3)
