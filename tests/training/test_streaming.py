"""A streamed run is the run over loaded data, resumes to the same rows, and shares its shards among processes."""

import pytest
import torch

from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.shards import pack_parquet, pack_tar
from tests.support.trained import losses, weights
from tests.support.two_processes import train_in_two_processes


@pytest.fixture
def shards(photos, tmp_path):
    """24 training rows in shards of 7 and parts of 3."""
    return pack_parquet(photos, tmp_path / "shards", 7, 3)


@pytest.fixture
def stream_recipe(tiny_recipe, shards, tmp_path):
    def make(folder, *patches, **data):
        training = {
            "num_train_epochs": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "output_dir": str(tmp_path / folder),
        }
        settings = {"name": str(shards), "streaming": True, "validation": 0, **data}
        return tiny_recipe({"data": settings, "training": training}, *patches)

    return make


def trained(recipe, **kwargs):
    trainer = build_trainer(recipe)
    trainer.train(**kwargs)
    return trainer


def assert_same(first, second):
    assert losses(first) == losses(second)
    for name, value in weights(first).items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def rows_trained(trainer):
    """The rows of each batch, as the loop gets them."""
    seen = []
    original = trainer._prepare_inputs

    def note(inputs):
        if trainer.model.training:
            seen.append(inputs["rows"].tolist())
        return original(inputs)

    trainer._prepare_inputs = note
    trainer.train()
    return seen


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("transforms", ["device", "loader"])
def test_a_stream_whose_buffer_holds_all_rows_gives_the_weights_of_loaded_data_bit_for_bit(
    workers, transforms, stream_recipe
):
    streamed = trained(
        stream_recipe("streamed", {"training": {"dataloader_num_workers": workers}}, transforms=transforms)
    )
    loaded = trained(stream_recipe("loaded", streaming=False))
    assert len(losses(streamed)) == 6
    assert_same(streamed, loaded)
    first, second = (trainer.predict(trainer.test_dataset) for trainer in (streamed, loaded))
    assert (first.predictions == second.predictions).all()
    assert (first.label_ids == second.label_ids).all()


def test_archives_train_as_tables_do(stream_recipe, photos, tmp_path):
    archives = pack_tar(photos, tmp_path / "archives", 7)
    small = {"shuffle_buffer": 5}
    tables = trained(stream_recipe("tables", **small))
    assert_same(trained(stream_recipe("archives", name=str(archives), **small)), tables)


@pytest.mark.slow
def test_photographs_packed_in_shards_give_the_weights_of_the_loaded_folder(data_dir, tiny_recipe, tmp_path):
    """Random-resized crops, several shards, the classes and the validation split of real data."""
    packed = pack_parquet(data_dir / "clothing", tmp_path / "clothing", 150, 40)

    def run(streaming):
        training = {"max_steps": 6, "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no",
                    "output_dir": str(tmp_path / str(streaming))}  # fmt: skip
        data = {"name": str(packed), "streaming": streaming, "cache": "none", "validation": 0.1, "image_size": 32}
        return trained(tiny_recipe({"data": data, "training": training}))

    streamed, loaded = run(True), run(False)
    assert len(streamed.splits.train) == 600
    assert len(streamed.splits.validation) == 138
    assert_same(streamed, loaded)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_trains_once_per_epoch_whoever_reads_it(workers, stream_recipe):
    recipe = stream_recipe("run", {"training": {"dataloader_num_workers": workers}}, shuffle_buffer=5)
    seen = rows_trained(build_trainer(recipe))
    assert len(seen) == 6
    for epoch in (seen[:3], seen[3:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(24))
    assert seen[:3] != seen[3:]


def test_micro_batches_have_the_rows_of_one_batch(stream_recipe):
    micro = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    big, small = (
        rows_trained(build_trainer(stream_recipe(f"run{number}", {"training": training}, shuffle_buffer=5)))
        for number, training in enumerate(({}, micro))
    )
    assert [row for batch in big for row in batch] == [row for batch in small for row in batch]


@pytest.mark.parametrize("patch", [{}, {"augment": {"mixup": 0.5}}, {"progressive_resizing": {"start": 8}}])
def test_a_run_that_resumes_within_an_epoch_ends_bit_for_bit_as_an_uninterrupted_one(patch, stream_recipe, tmp_path):
    saved = {"training": {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}}
    whole = trained(stream_recipe("run", saved, shuffle_buffer=5, **patch))
    resumed = build_trainer(stream_recipe("run", saved, shuffle_buffer=5, **patch))
    rows = resumed.splits.train.dataset
    read = rows.parts_read
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert rows.parts_read - read <= 5, "8 rows, and none of the images that the run has had"
    assert_same(whole, resumed)


def test_a_loss_that_is_logged_every_few_steps_is_the_same_after_a_resume_between_them(stream_recipe, tmp_path):
    saved = {"training": {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9, "logging_steps": 2}}
    whole = trained(stream_recipe("run", saved))
    resumed = trained(stream_recipe("run", saved), resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert_same(whole, resumed)


def test_a_run_that_resumes_with_other_workers_says_that_the_order_has_changed(stream_recipe, tmp_path, caplog):
    saved = {"training": {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}}
    trained(stream_recipe("run", saved))
    workers = {"training": {"dataloader_num_workers": 2}}
    trained(stream_recipe("run", saved, workers), resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert "readers was 1 and is 2" in caplog.text


def test_a_frozen_backbone_is_computed_in_every_step(stream_recipe):
    trainer = build_trainer(stream_recipe("run", {"model": {"freeze": "backbone"}}, augment={"flip": False}))
    assert any("data.streaming keeps nothing of an image" in note for note in trainer.notes)


def test_the_report_of_a_streamed_run_has_its_rows_and_its_page(stream_recipe, tmp_path):
    folder = train(stream_recipe("run", {"training": {"num_train_epochs": 1}}))
    report = RunReport.load(folder)
    assert (report.data.train_rows, report.data.test_rows) == (24, 8)
    assert report.data.duplicates_searched is False
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_read_different_shards_and_end_an_epoch_at_the_same_step(stream_recipe, tmp_path):
    recipe = stream_recipe("two", {"training": {"per_device_train_batch_size": 4, "optim": "sgd"}}, shuffle_buffer=5)
    report = train_in_two_processes(recipe, tmp_path / "two.yaml")
    assert report.train.steps == 6
    assert report.test.accuracy is not None
    assert sum(row["support"] for row in report.test.per_class) == 8


@pytest.mark.slow
def test_two_processes_that_resume_within_an_epoch_end_as_uninterrupted_ones(stream_recipe, tmp_path):
    def recipe(folder, **training):
        training |= {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}
        return stream_recipe(folder, {"training": training}, shuffle_buffer=5)

    whole = train_in_two_processes(recipe("whole"), tmp_path / "whole.yaml")
    within = str(tmp_path / "whole" / "checkpoint-4")
    resumed = train_in_two_processes(recipe("resumed", resume_from_checkpoint=within), tmp_path / "resumed.yaml")
    assert resumed.train.steps == whole.train.steps == 6
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]
    assert resumed.test.loss == whole.test.loss
