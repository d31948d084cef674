"""`build_trainer` with the rows, the model, the transforms and the metrics of a Python caller."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2
from transformers import pipeline

import hf_accel
from hf_accel import build_trainer, load_recipe, report_on
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from tests.conftest import TINY
from tests.support.given_rows import NAMES, Rows, pictures, pixels, small_network, small_vit

pytestmark = pytest.mark.slow

PICTURES, WORDS = pictures()
NORMALISED = v2.Compose(
    [
        v2.ToImage(),
        v2.RandomHorizontalFlip(),
        v2.Resize((16, 16)),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
)


@pytest.fixture
def recipe(tmp_path):
    def make(**training):
        overrides = {**TINY, "training": {**TINY["training"], "output_dir": str(tmp_path / "run"), **training}}
        return load_recipe("finetune", overrides=overrides)

    return make


def accuracy_of(prediction):
    assert prediction.predictions.shape == (len(prediction.label_ids), 2)
    return {"mine": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def test_predictions_are_the_logits_in_the_order_of_the_rows(recipe):
    trainer = build_trainer(recipe(), (PICTURES, WORDS))
    output = trainer.predict(trainer.test_dataset)
    batch = trainer._prepare_inputs(trainer.test_dataset.__getitems__(range(len(trainer.test_dataset))))
    with torch.no_grad():
        expected = trainer.model.eval()(pixel_values=batch["pixel_values"]).logits
    torch.testing.assert_close(torch.from_numpy(output.predictions), expected)
    assert output.label_ids.tolist() == trainer.splits.test.labels.tolist()
    accuracy = (output.predictions.argmax(-1) == output.label_ids).mean()
    assert output.metrics["test_accuracy"] == pytest.approx(accuracy)
    scored = trainer.score(trainer.test_dataset)
    assert scored.metrics["test_loss"] == pytest.approx(output.metrics["test_loss"])


def test_new_rows_are_predicted_and_scored_in_every_form(recipe):
    trainer = build_trainer(recipe(), (PICTURES, WORDS))
    arrays, _ = pixels()
    expected = trainer.predict((PICTURES, WORDS)).predictions
    for rows in (PICTURES, arrays, Rows(lambda row: (PICTURES[row], WORDS[row]))):
        output = trainer.predict(rows)
        np.testing.assert_allclose(output.predictions, expected, atol=1e-5)
    assert trainer.predict(PICTURES).label_ids is None
    assert trainer.evaluate((PICTURES, WORDS))["eval_accuracy"] == pytest.approx(
        (expected.argmax(-1) == np.array([trainer.splits.label_names.index(word) for word in WORDS])).mean()
    )
    with pytest.raises(UserError, match="row 0 has the label 'green', expected one of the 2 classes"):
        trainer.predict((PICTURES, ["green"] * 40))


def test_own_metrics_come_next_to_ours_and_can_select_the_best_checkpoint(recipe):
    trainer = build_trainer(recipe(), (PICTURES, WORDS), compute_metrics=accuracy_of, metric_for_best_model="mine")
    trainer.train()
    scores = trainer.evaluate()
    assert scores["eval_mine"] == scores["eval_accuracy"]
    assert trainer.state.best_metric == scores["eval_mine"]
    assert report_on(trainer).test.accuracy == trainer.predict(trainer.test_dataset).metrics["test_mine"]


def test_own_metrics_can_take_the_place_of_ours(recipe):
    trainer = build_trainer(recipe(), (PICTURES, WORDS), compute_metrics=accuracy_of, standard_metrics=False)
    assert trainer.args.metric_for_best_model == "loss"
    assert {"eval_mine", "eval_loss"} <= set(trainer.evaluate())
    assert "eval_accuracy" not in trainer.evaluate()
    ours = build_trainer(recipe(), (PICTURES, WORDS))
    ours.compute_metrics = accuracy_of  # as with the stock Trainer
    assert "eval_mine" in ours.evaluate()
    assert "eval_accuracy" not in ours.evaluate()
    with pytest.raises(UserError, match="'mine', which is not computed here"):
        build_trainer(recipe(), (PICTURES, WORDS), metric_for_best_model="mine")


@pytest.mark.parametrize("make", [small_vit, small_network])
def test_accumulation_gives_the_gradients_of_one_large_batch(make, recipe):
    weights = []
    for size, steps in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = make().eval()
        training = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 2}
        model.train = lambda mode=True, model=model: model  # batch norm depends on the batch, whatever the Trainer does
        build_trainer(recipe(**training), (PICTURES, WORDS), model=model).train()
        weights.append({name: value.detach() for name, value in model.named_parameters()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4)


def test_a_given_classifier_is_saved_with_labels_and_processor_and_a_pipeline_gives_its_scores(recipe, tmp_path):
    trainer = build_trainer(recipe(), (PICTURES, WORDS), model=small_vit())
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    answers = pipeline("image-classification", model=str(tmp_path / "model"))(PICTURES[:3])
    predictions = hf_accel.predict(trainer, PICTURES[:3])
    for answer, prediction in zip(answers, predictions, strict=True):
        assert answer[0]["label"] == prediction.label
        assert answer[0]["score"] == pytest.approx(prediction.score, abs=1e-4)


def test_any_network_is_trained_in_place_and_its_best_checkpoint_is_loaded(recipe, tmp_path):
    from safetensors.torch import load_file

    network = small_network()
    before = network[0].weight.detach().clone()
    trainer = build_trainer(recipe(num_train_epochs=3), (PICTURES, WORDS), model=network)
    trainer.train()
    assert trainer.model.network is network
    assert not torch.equal(network[0].weight, before)
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(best[name], value), name
    trainer.save_model(str(tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "blue", "1": "red"}
    assert trainer.predict(trainer.test_dataset).metrics["test_accuracy"] == 1


def test_any_network_resumes_where_it_was(recipe):
    def trained(stop=None):
        torch.manual_seed(0)
        network = small_network()
        trainer = build_trainer(
            recipe(num_train_epochs=2, eval_strategy="no", save_strategy="epoch"), (PICTURES, WORDS),
            model=network, train_transform=NORMALISED, eval_transform=NORMALISED,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=stop)
        return network.state_dict(), trainer.args.output_dir

    whole, folder = trained()
    resumed, _ = trained(f"{folder}/checkpoint-4")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_grey_tensors_train_a_network_for_one_channel(recipe):
    images, labels = pixels()
    rows = Rows(lambda row: (torch.from_numpy(images[row]).permute(2, 0, 1)[:1] / 255, labels[row]))
    network = nn.Sequential(nn.Flatten(), nn.Linear(400, 2))
    trainer = build_trainer(recipe(), rows, model=network, label_names=NAMES)
    trainer.train()
    assert trainer.splits.label_names == NAMES
    assert trainer.predict(rows).predictions.shape == (40, 2)


def test_own_transforms_take_the_place_of_ours_and_a_prediction_follows_them(recipe):
    seen = []

    def evaluation(image):
        seen.append(image.size)
        return v2.functional.to_dtype(v2.functional.to_image(image), torch.float32, scale=True)

    trainer = build_trainer(
        recipe(), (PICTURES, WORDS), train_transform=v2.RandomHorizontalFlip(), eval_transform=evaluation
    )
    trainer.train()
    seen.clear()
    hf_accel.predict(trainer, PICTURES[:2])
    assert seen == [(20, 20)] * 2
    assert any(note.startswith("train_transform: RandomHorizontalFlip(p=0.5) in place of") for note in trainer.notes)


def test_settings_that_need_our_transforms_are_refused_by_name(recipe):
    asked = load_recipe("finetune", overrides={**TINY, "data": {**TINY["data"], "progressive_resizing": {"start": 8}}})
    with pytest.raises(
        UserError, match=r"data\.progressive_resizing acts on the images of this package's own pipeline"
    ):
        build_trainer(asked, (PICTURES, WORDS), train_transform=NORMALISED)


def test_a_peft_model_is_trained_and_its_best_adapter_is_loaded(recipe, tmp_path):
    peft = pytest.importorskip("peft", reason='needs peft: pip install "hf_accel[test]"')
    from safetensors.torch import load_file

    base = small_vit()
    names = [name for name, layer in base.named_modules() if isinstance(layer, nn.Linear) and name != "classifier"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=names, modules_to_save=["classifier"]))
    frozen = base.vit.embeddings.cls_token.detach().clone()
    trainer = build_trainer(recipe(num_train_epochs=3), (PICTURES, WORDS), model=model)
    trainer.train()
    assert trainer.loaded.is_given
    best = load_file(Path(trainer.state.best_model_checkpoint) / "adapter_model.safetensors")
    kept = peft.get_peft_model_state_dict(model)
    assert best.keys() == kept.keys()
    assert all(torch.equal(best[name], value) for name, value in kept.items())
    assert torch.equal(base.vit.embeddings.cls_token, frozen)
    logits = trainer.predict(PICTURES[:3]).predictions
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    trainer.loaded.processor.save_pretrained(tmp_path / "merged")
    answers = hf_accel.predict(tmp_path / "merged", PICTURES[:3])
    expected = torch.from_numpy(logits).softmax(-1).amax(-1)
    torch.testing.assert_close(torch.tensor([answer.score for answer in answers]), expected, atol=1e-4, rtol=0)
    assert {answer.label for answer in answers} <= set(NAMES)


@pytest.mark.parametrize("model_init", [None, lambda: small_vit()])
def test_a_search_begins_every_trial_with_new_weights_and_leaves_a_trainer_that_trains(model_init, recipe):
    pytest.importorskip("optuna", reason='needs optuna: pip install "hf_accel[test]"')
    trainer = build_trainer(recipe(), (PICTURES, WORDS), model_init=model_init)
    begun = []
    original = trainer.call_model_init

    def call_model_init(trial=None):
        model = original(trial)
        begun.append(next(p for p in model.parameters() if p.requires_grad).detach().clone())
        return model

    trainer.call_model_init = call_model_init
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)},
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=2,
        direction="maximize",
        backend="optuna",
    )
    assert all(torch.equal(weights, begun[0]) for weights in begun)
    assert trainer.args.learning_rate == TINY["training"]["learning_rate"]
    trainer.args.learning_rate = best.hyperparameters["learning_rate"]
    trainer.train()
    assert trainer.predict(trainer.test_dataset).predictions.shape == (8, 2)
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*/run-*"))


def test_a_search_that_could_not_begin_again_is_refused(recipe):
    trainer = build_trainer(recipe(), (PICTURES, WORDS), model=small_vit())
    with pytest.raises(UserError, match="every trial begins with new weights, and a model that is given exists once"):
        trainer.hyperparameter_search(n_trials=1)


def test_a_report_has_the_measurements_of_the_run(recipe, tmp_path):
    trainer = build_trainer(recipe(), (PICTURES, WORDS), model=small_network())
    trainer.train()
    report = report_on(trainer)
    assert (report.data.name, report.model.name, report.model.pretrained) == ("given as tuple", "Sequential", None)
    assert report.train.steps == 4
    assert report.test.accuracy == trainer.predict(trainer.test_dataset).metrics["test_accuracy"]
    report.save(tmp_path / "report")
    assert RunReport.load(tmp_path / "report").test == report.test


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": small_network(), "model_init": small_network}, "two of them are given, and a run has one model"),
        ({"processor": object()}, "processor: is that of a given model, and none is given"),
        ({"label_names": NAMES, "splits": None}, "label_names: names the classes of rows that are given"),
        ({"model": small_network(5)}, "Sequential answers an image with [5] numbers, expected one for each of the 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, message, recipe):
    with pytest.raises(UserError) as error:
        build_trainer(recipe(), **{"splits": (PICTURES, WORDS), **given})
    assert message in str(error.value)
