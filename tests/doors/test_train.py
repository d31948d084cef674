"""The straight line, from recipe to a folder that others load."""

import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import hf_accel.train
from hf_accel.cli import main as run_verb
from hf_accel.cli import run
from hf_accel.config.recipe import load_recipe, variant_names
from hf_accel.errors import UserError
from hf_accel.evaluate import main as evaluate_main
from hf_accel.predict import main as predict_main
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.train import main, train, train_from
from hf_accel.training.arguments import choose_precision, training_arguments
from hf_accel.training.build import build_trainer
from hf_accel.training.progress import BarCallback
from tests.support.checkpoints import write_checkpoint
from tests.support.saved_models import save_encoder

pytestmark = pytest.mark.slow

CONTRACT = {
    "schema", "recipe", "variant", "settings", "notes", "environment", "data", "model", "train", "history", "phases",
    "calibration", "pruning", "quantization", "reference", "task", "sparsity", "thresholds", "validation", "test",
}  # fmt: skip


@pytest.fixture
def finished(tiny_recipe):
    recipe = tiny_recipe({"training": {"num_train_epochs": 2, "logging_steps": 1}})
    return recipe, train(recipe)


def test_a_run_leaves_the_files_that_are_promised(finished):
    _, folder = finished
    names = {path.name for path in folder.iterdir()}
    assert {"recipe.yaml", "report.json", "report.html", "history.csv", "predictions.csv", "log.txt", "model"} <= names
    values = json.loads((folder / "report.json").read_text())
    assert set(values) == CONTRACT
    assert values["train"]["steps"] == 6
    assert values["train"]["world_size"] == 1
    assert values["train"]["images_per_second"] > 0
    assert values["train"]["final_loss"] > 0
    assert 0 <= values["train"]["accuracy"] <= 1
    assert 0 <= values["train"]["data_wait_fraction"] < 1
    assert 0 < values["train"]["transform_fraction"] < 1
    assert values["train"]["peak_memory_gib"] is None
    assert values["train"]["peak_rss_gib"] > values["train"]["peak_anonymous_gib"] > 0
    assert values["model"]["cpu_latency_seconds"] > 0
    assert values["model"]["cpu_latency_runs"] >= 1
    assert values["data"]["labels"] == ["blue", "red"]
    assert [values["data"][f"{part}_rows"] for part in ("train", "validation", "test")] == [19, 5, 8]
    assert values["validation"]["accuracy"] in [row["validation_accuracy"] for row in values["history"]]
    assert np.array(values["test"]["confusion"]).sum() == 8
    assert {row["label"] for row in values["test"]["per_class"]} == {"blue", "red"}
    assert [row["step"] for row in values["history"]] == [1, 2, 3, 4, 5, 6]
    files = {path.name for path in (folder / "model").iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= files
    assert not list(folder.glob("model/*.bin"))


def test_training_lowers_the_loss_and_changes_every_parameter(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {"num_train_epochs": 8, "logging_steps": 1}}))
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    for name, parameter in trainer.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


RELOAD = """
import json, sys
import numpy as np, PIL.Image, torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
if {own}: import hf_accel.cifar_nets
else: assert "hf_accel" not in sys.modules
folder, photo = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder).eval()
processor = AutoImageProcessor.from_pretrained(folder)
image = PIL.Image.open(photo)
pixels = processor(image, return_tensors="pt")["pixel_values"]
scores = pipeline("image-classification", model=folder)(photo)
print(json.dumps({{"logits": model(pixels).logits.tolist(), "labels": model.config.id2label, "pixels": pixels.tolist(),
                   "best": scores[0]["label"]}}))
"""


@pytest.mark.parametrize("kind", ["hub", "timm", "cifar_nets", "encoder"])
def test_a_saved_model_is_the_same_in_a_fresh_process(kind, tiny_recipe, tmp_path, photos):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    models = {
        "timm": {"name": "timm/resnet10t", "pretrained": False, "args": {"channels": [8, 8, 16, 16]}},
        "cifar_nets": {},
    }
    if kind == "encoder":
        from transformers import DINOv3ViTConfig

        config = DINOv3ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                 image_size=16, patch_size=4)  # fmt: skip
        save_encoder(tmp_path / "encoder", config, size=16)
        models["encoder"] = {"name": str(tmp_path / "encoder"), "pretrained": True, "args": {}}
    if kind == "hub":
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                           image_size=16, patch_size=4)  # fmt: skip
        ViTForImageClassification(config).save_pretrained(tmp_path / "hub")
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "hub")
        models["hub"] = {"name": str(tmp_path / "hub"), "pretrained": True, "args": {}}
    trainer = build_trainer(tiny_recipe({"model": models[kind]}))
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    photo = photos / "test" / "red" / "00.png"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            RELOAD.format(own=kind in ("cifar_nets", "encoder")),
            str(tmp_path / "saved"),
            str(photo),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    other = json.loads(done.stdout)
    with PIL.Image.open(photo) as image:
        pixels = trainer.loaded.processor(image, return_tensors="pt")["pixel_values"]
    trainer.model.eval()
    logits = trainer.model(pixels).logits
    torch.testing.assert_close(torch.tensor(other["pixels"]), pixels, rtol=0, atol=0)
    torch.testing.assert_close(torch.tensor(other["logits"]), logits, rtol=0, atol=1e-5)
    assert other["labels"] == {"0": "blue", "1": "red"}
    assert other["best"] == ["blue", "red"][int(logits.argmax())]


def test_an_encoder_without_a_classifier_is_probed_scored_and_described(tiny_recipe, tmp_path, photos, capsys):
    from transformers import DINOv3ConvNextConfig

    save_encoder(tmp_path / "encoder", DINOv3ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4))
    model = {"name": str(tmp_path / "encoder"), "pretrained": True, "args": {}, "freeze": "backbone"}
    training = {"num_train_epochs": 3, "learning_rate": 0.1}
    data = {"image_size": 32, "augment": {"crop": "none", "flip": False}}
    folder = train(tiny_recipe({"model": model, "data": data, "training": training}))
    report = RunReport.load(folder)
    assert report.train.feature_seconds > 0
    card = (folder / "model" / "README.md").read_text()
    assert "import hf_accel.cifar_nets" in card
    assert "transformers has no classifier of the type dinov3_convnext" in card
    assert str(tmp_path) not in (folder / "model" / "config.json").read_text()
    capsys.readouterr()
    assert evaluate_main([str(folder), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(report.test.loss, rel=1e-4)
    assert predict_main([str(folder), str(photos / "test" / "red"), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4


def test_the_resolved_recipe_gives_the_same_result(finished, tmp_path):
    _, folder = finished
    again = load_recipe(folder / "recipe.yaml", overrides={"training": {"output_dir": str(tmp_path / "again")}})
    train(again)
    first, second = RunReport.load(folder), RunReport.load(tmp_path / "again")
    assert first.test == second.test
    assert first.validation == second.validation
    assert first.train.final_loss == second.train.final_loss


def test_a_finished_run_is_kept_unless_told_otherwise(finished):
    recipe, folder = finished
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="finished run"):
        train(recipe)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    (folder / "mine.txt").write_text("kept")
    train(recipe, overwrite=True)
    assert (folder / "mine.txt").read_text() == "kept"


def interrupt(recipe, step):
    """Train as `train` does until the process dies after so many steps."""
    from hf_accel.runs.recorded_data import facts_of

    run = RunFolder.claim(recipe)
    trainer = build_trainer(recipe)
    trainer.add_callback(_StopAfter(step))
    held = run.open(recipe, facts_of(trainer.splits))
    held.__enter__()
    with pytest.raises(KeyboardInterrupt):
        train_from(run.checkpoint, trainer)
    with pytest.raises(KeyboardInterrupt):
        held.gen.throw(KeyboardInterrupt())


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("saving", "stops", "resumes", "repeated"),
    [({}, [4], 1, 1), ({"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}, [5, 7], 2, 2)],
    ids=["at the end of an epoch", "within an epoch, twice"],
)
def test_an_interrupted_run_resumes_and_reports_what_one_that_was_not_reports(
    tiny_recipe, tmp_path, saving, stops, resumes, repeated
):
    """Of the steps, those done again count as repeated: 1 after the checkpoint of step 3, or 1 after each of 4 and 6."""

    def recipe(name):
        training = {"num_train_epochs": 3, "output_dir": str(tmp_path / name), **saving}
        return tiny_recipe({"training": training, "data": {"validation": 0 if saving else 0.2}})

    whole, cut = train(recipe("whole")), recipe("cut")
    for stop in stops:
        interrupt(cut, stop)
    first, second = RunReport.load(whole), RunReport.load(train(cut))
    assert (first.train.resumes, first.train.repeated_steps) == (0, 0)
    assert (second.train.resumes, second.train.repeated_steps) == (resumes, repeated)
    assert second.train.steps == first.train.steps == 9
    assert second.train.accuracy == first.train.accuracy is not None
    assert first.test == second.test
    assert weights(whole) == weights(tmp_path / "cut")


def test_a_run_whose_pictures_or_classes_changed_is_not_resumed(tiny_recipe, photos, capsys):
    recipe = tiny_recipe({"training": {"num_train_epochs": 3}})
    interrupt(recipe, 4)
    before = {path: path.stat().st_mtime_ns for path in recipe.output_dir.rglob("*") if path.name != ".lock"}
    (photos / "train" / "blue").rename(photos / "train" / "aside")
    (photos / "train" / "red").rename(photos / "train" / "blue")
    (photos / "train" / "aside").rename(photos / "train" / "red")
    assert run(lambda argv: train(recipe) and 0) == 2
    said = capsys.readouterr().err
    assert "data has changed since (train: 19 rows before and now, but other images, labels or class names" in said
    assert "test:" not in said
    for split in ("train", "test"):
        (photos / split / "zebra").mkdir()
        (photos / split / "zebra" / "1.png").write_bytes((photos / split / "red" / "00.png").read_bytes())
    assert run(lambda argv: train(recipe) and 0) == 2
    assert "test: 8 rows before, 9 now" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in recipe.output_dir.rglob("*") if path.name != ".lock"}
    assert after == before
    train(recipe, overwrite=True)
    assert RunReport.load(recipe.output_dir).data.labels == ["blue", "red", "zebra"]


def test_a_finished_run_is_trained_longer_from_its_last_checkpoint(tiny_recipe):
    short = tiny_recipe({"training": {"num_train_epochs": 2, "lr_scheduler_type": "constant", "logging_steps": 1}})
    train(short)
    longer = tiny_recipe({"training": short.training | {"num_train_epochs": 3, "resume_from_checkpoint": True}})
    report = RunReport.load(train(longer))
    assert (report.train.steps, report.train.epochs, report.train.resumes, report.train.repeated_steps) == (9, 3, 1, 0)
    assert [row["step"] for row in report.history] == list(range(1, 10))
    at_once = {"output_dir": str(short.output_dir.with_name("at_once")), "num_train_epochs": 3}
    straight = train(tiny_recipe({"training": short.training | at_once}))
    assert report.test == RunReport.load(straight).test
    assert weights(short.output_dir) == weights(straight)


def test_a_path_is_the_checkpoint_that_another_folder_starts_from(tiny_recipe, tmp_path):
    def recipe(name, epochs, **more):
        training = {"num_train_epochs": epochs, "output_dir": str(tmp_path / name), "lr_scheduler_type": "constant"}
        return tiny_recipe({"training": training | more})

    checkpoint = train(recipe("short", 2)) / "checkpoint-6"
    report = RunReport.load(train(recipe("longer", 3, resume_from_checkpoint=str(checkpoint))))
    assert report.train.steps == 9
    assert any(f"training began from {checkpoint}" in note for note in report.notes)
    assert weights(tmp_path / "longer") == weights(train(recipe("at_once", 3)))
    assert checkpoint.is_dir()


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"model": {"name": "timm/resnet10t", "args": {"channels": [8, 8, 16, 16]}}}, "its weights do not fit"),
        ({"model": {"args": {"depth": 8, "width": 8}}}, "its weights do not fit"),
        (
            {"data": {"name": "digits"}},
            "is of 2 classes, and this data has 10: 'blue' is a class of one of the two only",
        ),
    ],
    ids=["architecture", "width", "classes"],
)
def test_a_checkpoint_of_another_model_is_refused_before_anything_is_written(tiny_recipe, tmp_path, patch, message):
    checkpoint = train(tiny_recipe()) / "checkpoint-3"
    training = {"output_dir": str(tmp_path / "other"), "num_train_epochs": 5, "resume_from_checkpoint": str(checkpoint)}
    with pytest.raises(UserError, match="checkpoint-3") as refused:
        train(tiny_recipe(patch, {"training": training}))
    assert message in str(refused.value)
    assert not (tmp_path / "other" / "recipe.yaml").exists()


def test_a_checkpoint_is_not_continued_with_test_rows_that_it_was_trained_on(tiny_recipe, photos, tmp_path):
    plain = {"data": {"name": str(photos / "train")}}
    checkpoint = train(tiny_recipe(plain)) / "checkpoint-2"
    (photos / "train" / "red" / "more.png").write_bytes((photos / "test" / "red" / "00.png").read_bytes())
    training = {"output_dir": str(tmp_path / "other"), "num_train_epochs": 5, "resume_from_checkpoint": str(checkpoint)}
    with pytest.raises(UserError, match="test rows are drawn from the train split"):
        train(tiny_recipe(plain, {"training": training}))


class _StopAfter:
    def __new__(cls, steps):
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == steps:
                    raise KeyboardInterrupt

        return Stop()


def test_an_unfinished_run_of_another_recipe_is_not_mixed_with_this_one(tiny_recipe):
    recipe = tiny_recipe()
    folder = recipe.output_dir
    write_checkpoint(folder / "checkpoint-3", 3)
    tiny_recipe({"training": {"seed": 5}}).write(folder / "recipe.yaml")
    with pytest.raises(UserError, match=r"training\.seed"):
        RunFolder.claim(recipe)


def test_class_weights_reach_the_loss(tiny_recipe):
    no_smoothing = {"training": {"label_smoothing_factor": 0}}
    plain = build_trainer(tiny_recipe(no_smoothing))
    weighted = build_trainer(tiny_recipe(no_smoothing, {"data": {"class_weights": [0.0, 2.0]}}))
    batch = next(iter(plain.get_train_dataloader()))
    inputs = plain._prepare_inputs(batch)
    outputs = weighted.model(pixel_values=inputs["pixel_values"])
    only_red = inputs["labels"] == 1
    expected = torch.nn.functional.cross_entropy(outputs.logits[only_red], inputs["labels"][only_red], reduction="sum")
    torch.testing.assert_close(weighted.loss(outputs, inputs["labels"]), 2 * expected / len(only_red))
    with pytest.raises(UserError, match="class_weights has 3 numbers"):
        build_trainer(tiny_recipe({"data": {"class_weights": [1.0, 1.0, 1.0]}}))


def test_early_stopping_is_one_line(tiny_recipe):
    patience = {"early_stopping_patience": 1, "num_train_epochs": 20, "learning_rate": 0.0}
    trainer = build_trainer(tiny_recipe({"training": patience}))
    trainer.train()
    assert trainer.state.epoch < 20


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_early_stopping_counts_on_where_a_run_was_interrupted(epochs, tiny_recipe):
    """Nothing is learned, so a run with patience 2 ends after 3 epochs; also one that was killed right after its last step."""
    training = {"early_stopping_patience": 2, "num_train_epochs": 20, "learning_rate": 0.0, "save_total_limit": 9}
    recipe = tiny_recipe({"training": training})
    whole = build_trainer(recipe)
    whole.train()
    assert whole.state.epoch == 3
    resumed = build_trainer(recipe)
    resumed.train(resume_from_checkpoint=str(recipe.output_dir / f"checkpoint-{3 * epochs}"))
    assert resumed.state.epoch == 3
    assert resumed.state.global_step == whole.state.global_step
    whole.train()
    assert whole.state.epoch == 3


def test_without_validation_every_row_trains_and_the_last_weights_are_scored(tiny_recipe):
    report = RunReport.load(train(tiny_recipe({"data": {"validation": 0}})))
    assert report.data.train_rows == 24
    assert report.data.validation_rows is None
    assert report.validation is None
    assert report.test.accuracy is not None


@pytest.mark.parametrize("setting", [{"gradient_accumulation_steps": 3}, {"gradient_checkpointing": True},
                                     {"bf16": True}, {"label_smoothing_factor": 0.1}, {"dataloader_num_workers": 2},
                                     {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"}])  # fmt: skip
def test_a_technique_is_one_line_of_training(tiny_recipe, setting):
    recipe = tiny_recipe(
        {"training": setting, "model": {"name": "timm/resnet10t", "args": {"channels": [8, 8, 16, 16]}}}
    )
    trainer = build_trainer(recipe)
    trainer.train()
    assert trainer.state.global_step > 0
    for name, value in setting.items():
        assert trainer.arguments.changed[name] == value


def test_bf16_is_really_in_force_and_the_weights_stay_float32(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {"bf16": True}}))
    seen = set()
    trainer.model.timm_model.conv1.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


def test_channels_last_is_really_in_force(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"model": {"channels_last": True}}))
    weight = trainer.model.timm_model.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    trainer.model.timm_model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    trainer.train()
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_the_fused_optimizer_is_really_in_force(tiny_recipe, optim):
    optimizer = build_trainer(tiny_recipe({"training": {"optim": optim}})).create_optimizer()
    assert {bool(group["fused"]) for group in optimizer.param_groups} == {optim == "adamw_torch_fused"}


@pytest.mark.parametrize("kind", ["hub", "timm"])
def test_gradient_checkpointing_is_really_in_force(tiny_recipe, tmp_path, kind):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    def passes(checkpointing):
        training = {"gradient_checkpointing": checkpointing, "output_dir": str(tmp_path / str(checkpointing))}
        trainer = build_trainer(tiny_recipe({"model": model, "training": training}))
        inside = trainer.model.timm_model.layer2[0].conv1 if kind == "timm" else trainer.model.vit.layers[0].attention
        seen = []
        inside.register_forward_pre_hook(lambda module, args: seen.append(module.training))
        trainer.train()
        return seen.count(True)

    model = {"name": "timm/resnet10t", "args": {"channels": [8, 8, 16, 16]}}
    if kind == "hub":
        config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                           image_size=16, patch_size=4)  # fmt: skip
        ViTForImageClassification(config).save_pretrained(tmp_path / "hub")
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "hub")
        model = {"name": str(tmp_path / "hub"), "pretrained": True, "args": {}}
    assert passes(False) == 3
    assert passes(True) == 6  # again in the backward pass of each of the 3 steps


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_weights(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"model": {"freeze_batch_norm": True}}))
    layer = trainer.model.timm_model.bn1
    mean, weight = layer.running_mean.clone(), layer.weight.clone()
    trainer.train()
    assert torch.equal(layer.running_mean, mean)
    assert not torch.equal(layer.weight, weight)


@pytest.mark.parametrize(
    ("asked", "device", "native", "chosen"),
    [
        ({"bf16": "auto"}, "cpu", True, {"fp16": False, "bf16": True}),
        ({"bf16": "auto"}, "cpu", False, {"fp16": False, "bf16": False}),
        ({"bf16": "auto"}, "cuda", False, {"fp16": True, "bf16": False}),
        ({"bf16": "auto"}, "cuda", True, {"fp16": False, "bf16": True}),
        ({"fp16": True}, "cuda", True, {"fp16": True, "bf16": False}),
        ({"bf16": True}, "cpu", False, {"fp16": False, "bf16": True}),
        ({}, "cpu", True, {"fp16": False, "bf16": False}),
    ],
)
def test_precision_follows_what_the_device_multiplies_natively(monkeypatch, asked, device, native, chosen):
    monkeypatch.setattr("hf_accel.training.arguments.native_bf16", lambda d: (native, "a reason"))
    precision, why = choose_precision("r", asked, device)
    assert precision == chosen
    assert ("warning" in why) == (asked == {"bf16": True})
    assert why


def test_a_precision_that_cannot_run_is_refused_with_the_alternative(tiny_recipe):
    with pytest.raises(UserError, match=r"fp16 needs a CUDA device.*bf16: auto"):
        training_arguments(tiny_recipe({"training": {"fp16": True, "bf16": False, "use_cpu": True}}), True)


def test_a_value_that_transformers_refuses_is_the_users_mistake(tiny_recipe):
    with pytest.raises(UserError, match="cosin"):
        training_arguments(tiny_recipe({"training": {"lr_scheduler_type": "cosin"}}), True)


def test_progress_is_a_line_for_each_evaluation(tiny_recipe, capsys):
    train(tiny_recipe({"training": {"num_train_epochs": 2}}))
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "validation accuracy" in line]
    assert len(lines) == 2
    assert "images/s" in lines[1]
    assert "\r" not in shown.err


def test_a_terminal_sees_a_bar_with_loss_and_images_per_second(tiny_recipe, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    train(tiny_recipe({"training": {"num_train_epochs": 4, "logging_steps": 1}}))
    bar = capsys.readouterr().err
    assert "12/12" in bar
    assert "loss " in bar
    assert " images/s" in bar.split("train: 100%")[1]


@pytest.mark.parametrize(("report_to", "message"), [("wandbb", "wandb"), ("neptune", "pip install neptune")])
def test_a_tracker_that_is_not_there_is_refused(tiny_recipe, report_to, message):
    with pytest.raises(UserError, match=message):
        build_trainer(tiny_recipe({"training": {"report_to": report_to}}))


def test_the_notes_of_a_run_reach_the_log_under_python_m_too():
    """Its logger has to be below the one that `start_console` and `start_log` listen to, whatever runs the module."""
    module = runpy.run_path(hf_accel.train.__file__, run_name="launched")
    assert module["logger"].name == "hf_accel.train"


def test_progress_without_validation_is_a_line_for_each_epoch(tiny_recipe, capsys):
    train(tiny_recipe({"training": {"num_train_epochs": 3}, "data": {"validation": 0}}))
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]) == 3


BAD_INPUT = {
    "unknown recipe": (["--recipe", "vit_cifar"], "Did you mean"),
    "unknown variant": (["--recipe", "digits", "--variant", "fast"], "no variant"),
    "unknown flag": (["--recipe", "digits", "--epochs", "3"], "--epochs"),
    "wrong type": (["--recipe", "digits", "--learning_rate", "high"], "expected a number"),
    "missing folder": (["--recipe", "digits", "--data.name", "./nowhere"], "nowhere"),
    "empty folder": (["--data.name", "{empty}"], "empty"),
    "one class": (["--data.name", "{one_class}"], "class"),
    "no such label column": (["--recipe", "digits", "--data.label_column", "kind"], "kind"),
    "no classifier": (["--recipe", "digits", "--model.name", "{bert}", "--model.pretrained", "false"],
                      "bert"),
    "image size": (["--recipe", "digits", "--model.name", "timm/vit_tiny_patch16_224", "--model.pretrained", "false"],
                   "data.image_size"),
    "resizing that grows down": (["--recipe", "digits", "--data.progressive_resizing.start", "64"], "at most 32"),
    "a model of one size": (["--recipe", "digits", "--model.name", "timm/vit_tiny_patch16_224",
                             "--model.pretrained", "false",
                             "--model.args", "{img_size: 32, patch_size: 8, depth: 1}",
                             "--data.progressive_resizing.start", "16"], "dynamic_img_size"),
    "no Hub": (["--recipe", "vit_cifar10", "--data.name", "digits"], "cannot be fetched"),
    "unknown timm model": (["--recipe", "digits", "--model.name", "timm/resnet19"], "resnet18"),
    "output is a file": (["--recipe", "digits", "--output_dir", "{file}"], "is a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_message_with_nothing_written(case, tmp_path, monkeypatch, photos, capsys):
    from transformers import BertConfig

    (tmp_path / "empty").mkdir()
    for row in (photos / "train" / "red").iterdir():
        (tmp_path / "one_class" / "red").mkdir(parents=True, exist_ok=True)
        (tmp_path / "one_class" / "red" / row.name).write_bytes(row.read_bytes())
    BertConfig().save_pretrained(tmp_path / "bert")
    (tmp_path / "file").write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    argv, expected = BAD_INPUT[case]
    places = {name: str(tmp_path / name) for name in ("empty", "one_class", "bert", "file")}
    words = [places.get(word.strip("{}"), word) for word in argv]
    assert run(main, words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error
    assert not any(work.iterdir()), [str(path) for path in work.rglob("*")]


def test_overwrite_keeps_the_finished_run_when_the_new_one_is_refused(finished):
    _, folder = finished
    assert run(main, ["--recipe", str(folder / "recipe.yaml"), "--overwrite", "--data.name", "./typo"]) == 2
    assert RunReport.load(folder).test.accuracy is not None


def test_a_broken_test_image_is_named_and_nothing_is_written(tiny_recipe, photos):
    (photos / "test" / "red" / "00.png").write_bytes(b"broken")
    recipe = tiny_recipe()
    with pytest.raises(UserError, match=r"red/00\.png"):
        train(recipe)
    assert not recipe.output_dir.exists()


def test_a_place_that_is_not_a_folder_is_refused(tiny_recipe, photos):
    with pytest.raises(UserError, match="not a folder that can be written"):
        train(tiny_recipe({"training": {"output_dir": str(photos / "test" / "red" / "00.png" / "run")}}))


def test_the_loader_and_the_device_give_the_same_run_with_mixup_too(tiny_recipe, tmp_path):
    def losses(place):
        operations = [{"affine": {"shear": 10}}, {"elastic": {"sigma": 1}}, {"blur": {}}]
        augment = {"crop": "random_resized", "flip": True, "mixup": 1.0, "chain": {"operations": operations}}
        data = {"transforms": place, "augment": augment | {"trivial_augment": {}}}
        training = {"logging_steps": 1, "output_dir": str(tmp_path / place)}
        trainer = build_trainer(tiny_recipe({"data": data, "training": training}))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert losses("loader") == losses("device")


def test_nothing_is_said_of_checkpoints_where_none_is_saved(tiny_recipe):
    def notes(strategy):
        chosen = training_arguments(tiny_recipe({"training": {"save_strategy": strategy}}), has_validation=False).notes
        return [note for note in chosen if note.startswith("save_total_limit")]

    assert notes("epoch") == ["save_total_limit: 2 (the best and the last checkpoint)"]
    assert notes("no") == []


@pytest.mark.parametrize("variant", [v for v in variant_names("finetune") if v != "fp16"])
def test_every_variant_runs_and_the_result_is_a_classifier(variant, tiny_recipe, tmp_path):
    tiny = tiny_recipe().to_dict()
    patch = {"model": {k: tiny["model"][k] for k in ("name", "pretrained", "args")},
             "data": {k: tiny["data"][k] for k in ("name", "image_size", "validation")},
             "training": {"max_steps": 8, "per_device_train_batch_size": 4, "output_dir": str(tmp_path / variant)}}  # fmt: skip
    if variant == "compile":
        patch["training"]["torch_compile_backend"] = "eager"
    recipe = load_recipe("finetune", variant, patch)
    report = RunReport.load(train(recipe))
    assert report.train.steps == 8
    assert report.validation.accuracy is not None
    assert (report.train.compile_seconds is not None) == (variant == "compile")
    assert (report.train.transform_fraction is None) == (recipe.data.transforms == "loader")


def test_dropping_the_last_training_batch_leaves_no_row_unscored(tiny_recipe):
    training = {"dataloader_drop_last": True, "per_device_eval_batch_size": 3}
    report = RunReport.load(train(tiny_recipe({"training": training})))
    assert report.train.steps == 19 // 8
    assert sum(map(sum, report.test.confusion)) == report.data.test_rows == 8


def test_pixels_on_the_device_give_the_same_run(tiny_recipe, tmp_path):
    def result(cache):
        training = {"output_dir": str(tmp_path / cache)}
        return RunReport.load(
            train(tiny_recipe({"data": {"cache": cache, "augment": {"crop": "none"}}, "training": training}))
        )

    memory, device = result("memory"), result("device")
    assert memory.test == device.test
    assert memory.train.final_loss == device.train.final_loss


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_before_anything_is_written(tiny_recipe, monkeypatch):
    recipe = tiny_recipe()
    monkeypatch.setattr("hf_accel.training.checks.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="no space left for this run"):
        train(recipe)
    assert not recipe.output_dir.exists()


def test_the_checkpoints_of_an_unfinished_run_count_as_room_for_the_next_ones(tiny_recipe, monkeypatch):
    """A full disk ends a run; with some of it freed, the same command resumes it, because old checkpoints go as new come."""
    recipe = tiny_recipe()
    kept = recipe.output_dir / "checkpoint-1"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(bytes(10**6))
    monkeypatch.setattr("hf_accel.training.checks.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert build_trainer(recipe).state.global_step == 0


TINY_FLAGS = ["--model.name", "hf_accel/cifar_resnet20", "--model.pretrained", "false", "--data.image_size", "16",
              "--per_device_train_batch_size", "8", "--data.validation", "0.2", "--num_train_epochs", "2"]  # fmt: skip


def test_a_folder_alone_is_trained_on_and_the_commands_that_follow_can_be_copied(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos.rename("my own photos")
    assert run(main, ["my own photos", *TINY_FLAGS]) == 0
    shown = capsys.readouterr()
    for told in ("2 classes, 19 train, 5 validation, 8 test images", "model: hf_accel/cifar_resnet20, from random weights",
                 "training: 2 epochs, batches of 8 images"):  # fmt: skip
        assert shown.err.count(told) == 1
    (folder,) = Path("outputs").glob("*/default")
    log = (folder / "log.txt").read_text("utf-8")
    for note in RunReport.load(folder).notes:  # each is in the log, and at most once on the screen
        assert note in log
        assert shown.err.count(note) <= 1
    assert "save_total_limit" not in shown.err
    for word in ("accuracy", "F1", "images/s", "peak memory", "report.json"):
        assert word in shown.out
    commands = [shlex.split(line) for line in shown.out.split("next:\n")[1].splitlines()]
    assert [words[:3] for words in commands] == [
        ["hf-accel", verb, str(folder)] for verb in ("predict", "demo", "push")
    ]
    assert run_verb(commands[0][1:]) == 0
    assert "red" in capsys.readouterr().out


def test_quiet_and_json_leave_nothing_but_the_result(photos, tmp_path, capsys):
    assert run(main, [str(photos), *TINY_FLAGS, "--output_dir", str(tmp_path / "run"), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{tmp_path / 'run'}\n", "")
    words = ["--resume_from_checkpoint", "true", "--json"]
    assert run(main, [str(photos), *TINY_FLAGS[:-1], "3", "--output_dir", str(tmp_path / "run"), *words]) == 0
    document = json.loads(capsys.readouterr().out)
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert document == {"folder": str(tmp_path / "run"), **report}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "hf-accel train ./photos"),
        (["--learning_rate", "1e-3"], "hf-accel train --recipe digits"),
        (["--bf16", "{photos}"], "was read as the value of --bf16: name the images first"),
        (["digits"], "is a recipe, expected images. Use hf-accel train --recipe digits"),
        (["mine.yaml"], "is a recipe, expected images"),
        (["{photos}", "--data.name", "digits"], "--data.name digits names the data, too"),
        (["./fotos"], "no such folder"),
        (["{photos}", "more"], "unexpected 'more'"),
    ],
)
def test_train_explains_what_it_needs(words, told, photos, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert run(main, [word.format(photos=photos) for word in words]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""
    assert not any(Path().iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_run_says_that_the_same_command_resumes_it_and_it_does(
    overwrite, photos, tmp_path, monkeypatch, capsys
):
    words = [str(photos), *TINY_FLAGS, "--output_dir", str(tmp_path / "run")]

    def stop(self, args, state, control, **kwargs):
        if state.global_step == stop.step:
            raise KeyboardInterrupt

    monkeypatch.setattr(BarCallback, "on_step_end", stop)
    stop.step = 1
    assert run(main, words) == 130
    assert "no checkpoint was saved yet. The same command starts from scratch." in capsys.readouterr().err
    stop.step = 4
    assert run(main, [*words, *(["--overwrite"] if overwrite else [])]) == 130
    again = "The same command without --overwrite" if overwrite else "The same command"
    assert capsys.readouterr().err.endswith(
        f"interrupted: {tmp_path / 'run' / 'checkpoint-3'} is saved. {again} resumes from it.\n"
    )
    stop.step = None
    assert run(main, words) == 0
    assert "resuming from checkpoint-3" in capsys.readouterr().err
    assert RunReport.load(tmp_path / "run").train.steps == 6


def test_a_run_without_a_recipe_says_which_one_it_takes(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--model.name", "hf_accel/cifar_resnet20", "--model.pretrained", "false", "--data.image_size", "16"]
    assert main(["--data.name", str(photos), "--max_steps", "1", *flags]) == 0
    assert "using finetune" in capsys.readouterr().err
    assert Path("outputs/finetune-cifar_resnet20-photos/default/report.json").is_file()


@pytest.mark.parametrize("launcher", [(), ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")])
def test_a_command_started_by_its_path_finds_the_libraries_that_its_folder_has_namesakes_of(photos, tmp_path, launcher):
    """evaluate.py in the folder of the started script hid the library `evaluate`."""
    flags = {"--data.name": photos, "--output_dir": tmp_path / "run", "--max_steps": 1, "--data.image_size": 16}
    flags |= {"--model.name": "hf_accel/cifar_resnet20", "--model.pretrained": "false"}
    words = [str(word) for pair in flags.items() for word in pair]
    command = [sys.executable, *launcher, hf_accel.train.__file__, "--recipe", "finetune", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.json").is_file()
