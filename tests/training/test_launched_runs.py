"""Runs of two processes that fail, are started again, or resume with another number of processes."""

import json
import time

import pytest

from hf_accel import cli, train
from hf_accel.report.run_report import RunReport
from hf_accel.runs import manifest
from tests.support.two_processes import TWO, launch, train_in_two_processes

DIES = """
import os, sys
from hf_accel import cli, ranks, train
from hf_accel.training.trainer import ImageTrainer
step = ImageTrainer.training_step

def training_step(self, *args, **kwargs):
    assert self.args.world_size == 2
    if os.environ["RANK"] == "1" and self.state.global_step == 3 and ranks.count_restarts() == 0:
        os._exit(3) if sys.argv[1] == "silently" else 1 / 0
    return step(self, *args, **kwargs)

ImageTrainer.training_step = training_step
cli.run_and_exit(lambda argv: train.main(sys.argv[2:]))
"""


@pytest.fixture
def run_recipe(tiny_recipe, tmp_path):
    """17 rows, three steps of eight rows in each of two epochs, a checkpoint after every step."""

    def make(folder, batch=4, **training):
        training |= {"per_device_train_batch_size": batch, "output_dir": str(tmp_path / folder), "num_train_epochs": 2,
                     "optim": "sgd", "logging_steps": 1, "save_strategy": "steps", "save_steps": 1,
                     "eval_strategy": "no", "load_best_model_at_end": False}  # fmt: skip
        data = {"validation": 0, "max_train_rows": 17}
        return tiny_recipe({"training": training, "data": data, "model": {"freeze_batch_norm": True}})

    return make


def launch_dying(recipe, tmp_path, how, *words, options=TWO):
    (tmp_path / "dies.py").write_text(DIES)
    recipe.write(tmp_path / "dies.yaml")
    return launch(tmp_path / "dies.py", how, "--recipe", tmp_path / "dies.yaml", *words, options=options)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_and_the_other_one_says_nothing(run_recipe, tmp_path):
    begin = time.monotonic()
    done = launch_dying(run_recipe("run"), tmp_path, "loudly")
    assert time.monotonic() - begin < 60 + 60  # starting takes long on a busy machine
    assert done.returncode != 0
    assert "[rank1]: ZeroDivisionError" in done.stderr
    assert "[rank0]" not in done.stderr
    assert "lost each other" not in done.stderr
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.slow
def test_a_launcher_that_restarts_resumes(run_recipe, tmp_path):
    """The second attempt must not overwrite what the first one saved."""
    (tmp_path / "run").mkdir()
    done = launch_dying(run_recipe("run"), tmp_path, "silently", "--overwrite", options=(*TWO, "--max_restarts", "1"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming from checkpoint-3" in done.stderr
    report = RunReport.load(tmp_path / "run")
    assert (report.train.world_size, report.train.resumes, report.train.steps) == (2, 1, 6)
    whole = RunReport.load(train.train(run_recipe("whole", batch=8)))
    assert report.test.loss == pytest.approx(whole.test.loss, rel=1e-5)


@pytest.mark.slow
def test_a_mistake_is_said_once(run_recipe, tmp_path):
    run_recipe("run").write(tmp_path / "run.yaml")
    done = launch("-m", "hf_accel.train", "--recipe", tmp_path / "run.yaml", "--data.name", tmp_path / "nowhere")
    assert done.returncode != 0
    assert sum(line.startswith("error") for line in done.stderr.splitlines()) == 1
    before, _, summary = done.stderr.partition("FAILED")  # of the launcher, which has the last word
    assert "nowhere" in before
    assert "nowhere" in summary


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes_and_the_same_batches(run_recipe, tmp_path):
    """From two processes to one and back to two; the loss of the log and the accuracy of the epoch are theirs, too."""
    whole = RunReport.load(train.train(run_recipe("whole", batch=8)))
    recipe = run_recipe("run")
    done = launch_dying(recipe, tmp_path, "silently")
    assert "checkpoint-3" in {path.name for path in (tmp_path / "run").iterdir()}, done.stderr[-3000:]
    stop_after(tmp_path / "run", recipe, 5)
    assert manifest.read(tmp_path / "run" / "checkpoint-5")["processes"] == 1
    report = train_in_two_processes(recipe, tmp_path / "run.yaml")
    assert report.train.resumes == 2
    assert report.train.effective_batch_size == 8
    assert [entry["loss"] for entry in report.history] == pytest.approx(
        [entry["loss"] for entry in whole.history], rel=1e-5
    )
    assert report.test.loss == pytest.approx(whole.test.loss, rel=1e-5)
    assert report.train.accuracy == pytest.approx(whole.train.accuracy)
    assert [note for note in report.notes if note.startswith("processes: 2 from checkpoint-5")] == []


def stop_after(folder, recipe, step):
    """Run a recipe in this process until it has saved a step."""
    from hf_accel.training.trainer import ImageTrainer

    original = ImageTrainer.training_step

    def training_step(self, *args, **kwargs):
        assert self.args.gradient_accumulation_steps == 2
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    ImageTrainer.training_step = training_step
    try:
        with pytest.raises(KeyboardInterrupt):
            train.train(recipe)
    finally:
        ImageTrainer.training_step = original


def test_processes_that_cannot_make_the_same_batches_are_refused(run_recipe, tmp_path, capsys):
    recipe = run_recipe("run", max_steps=2)
    train.train(recipe)
    (tmp_path / "run" / "report.json").unlink()
    file = tmp_path / "run" / "checkpoint-2" / manifest.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processes": 3, "batch": 6}))
    recipe.write(tmp_path / "run.yaml")
    words = ["--recipe", str(tmp_path / "run.yaml"), "--max_steps", "3", "--resume_from_checkpoint", "true"]
    assert cli.run(train.main, words) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "3 processes and batches of 6 rows. 1 processes with 4 each take 4 at a time" in message
