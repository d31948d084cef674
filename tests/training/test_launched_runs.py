"""Runs of two processes that fail, are started again, or resume with another number of processes."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import torch

from hf_accel import cli, train, verify
from hf_accel.config.sections import HardExamples
from hf_accel.methods.row_losses import RowLosses
from hf_accel.report.run_report import RunReport
from hf_accel.runs import manifest
from hf_accel.runs.folder import RunFolder
from hf_accel.training.evaluation import TrainAccuracyCallback
from tests.support.two_processes import TWO, launch, launch_on_two_machines

DIES = """
import os, sys
from hf_accel import cli, ranks, train
from hf_accel.training.trainer import ImageTrainer
step = ImageTrainer.training_step

def training_step(self, *args, **kwargs):
    assert self.args.world_size == 2
    if os.environ["RANK"] == "1" and self.state.global_step == 4 and ranks.count_restarts() == 0:
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
                     "optim": "sgd", "logging_steps": 3, "save_strategy": "steps", "save_steps": 1,
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
    assert "resuming from checkpoint-4" in done.stderr
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
def test_one_process_resumes_a_run_of_two_with_the_same_batches(run_recipe, tmp_path):
    """Within an epoch and between two lines of the log: its loss and the accuracy of the epoch are of all rows, too."""
    recipe = run_recipe("run")
    done = launch_dying(recipe, tmp_path, "silently")
    assert (tmp_path / "run" / "checkpoint-4").is_dir(), done.stderr[-3000:]
    report, whole = (RunReport.load(train.train(made)) for made in (recipe, run_recipe("whole", batch=8)))
    assert (report.train.world_size, report.train.resumes, report.train.effective_batch_size) == (1, 1, 8)
    losses = [[entry["loss"] for entry in found.history] for found in (report, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert report.test.loss == pytest.approx(whole.test.loss, rel=1e-5)
    assert report.train.accuracy == pytest.approx(whole.train.accuracy)
    assert any(note.startswith("processes: 1 from checkpoint-4 on, which is of 2") for note in report.notes)
    facts = manifest.read(tmp_path / "run" / "checkpoint-6")
    assert (facts["processes"], facts["batch"]) == (1, 8)


@pytest.mark.parametrize("now", [1, 2, 3])
def test_the_sums_of_all_processes_are_those_of_another_number_of_them(now, tmp_path):
    counts = TrainAccuracyCallback(torch.device("cpu"))
    states = [{"correct": 3, "loss": 1.5, "seen": 4, "epoch": 1}, {"correct": 1, "loss": 2.0, "seen": 2, "epoch": 1}]
    joined = [counts.joined(states, process) for process in range(now)]
    assert {name: sum(state[name] for state in joined) for name in ("correct", "loss", "seen")} == {
        "correct": 4,
        "loss": 3.5,
        "seen": 6,
    }
    assert {state["epoch"] for state in joined} == {1}
    losses = RowLosses(HardExamples(), 2, 2, torch.device("cpu"))
    states = [{"losses": torch.ones(2), "sums": torch.tensor(x), "counts": torch.tensor([1.0, 0.0]), "epoch": 1}
              for x in ([2.0, 0.0], [3.0, 0.0])]  # fmt: skip
    joined = [losses.joined(states, process) for process in range(now)]
    assert sum(state["sums"] for state in joined).tolist() == [5.0, 0.0]
    assert sum(state["counts"] for state in joined).tolist() == [2.0, 0.0]
    assert all(torch.equal(state["losses"], torch.ones(2)) for state in joined)


@pytest.mark.slow
def test_two_machines_with_a_folder_each_both_keep_the_run_and_resume_it(run_recipe, tmp_path):
    """One of them has lost its newest checkpoint, so both resume from the one before."""
    recipe = run_recipe("run")
    machines = [tmp_path / name for name in ("first", "second")]
    for machine in machines:
        machine.mkdir()
    replace(recipe, training=recipe.training | {"output_dir": "run"}).write(tmp_path / "run.yaml")
    (tmp_path / "dies.py").write_text(DIES)
    words = ("--recipe", tmp_path / "run.yaml")
    done = launch_on_two_machines(machines, tmp_path / "dies.py", "silently", *words)
    assert [ended.returncode for ended in done] != [0, 0]
    for machine in machines:
        assert RunFolder(machine / "run").checkpoints.newest_whole().name == "checkpoint-4"
    shutil.rmtree(machines[1] / "run" / "checkpoint-4")
    done = launch_on_two_machines(machines, "-m", "hf_accel.train", *words)
    assert [ended.returncode for ended in done] == [0, 0], done[1].stderr[-3000:]
    assert "resuming from checkpoint-3" in done[0].stderr
    whole = RunReport.load(train.train(run_recipe("whole", batch=8)))
    for machine in machines:
        assert cli.run(verify.main, [str(machine / "run")]) == 0
        report = RunReport.load(machine / "run")
        assert (report.train.world_size, report.train.resumes) == (2, 1)
        assert report.test.loss == pytest.approx(whole.test.loss, rel=1e-5)
    names = [{path.name for path in (machine / "run" / "checkpoint-6").glob("rng_state_*")} for machine in machines]
    assert names == [{"rng_state_0.pth"}, {"rng_state_1.pth"}]
    assert (machines[0] / "run" / "report.html").is_file()


@pytest.mark.slow
def test_two_machines_with_a_shared_folder_leave_what_one_leaves(run_recipe, tmp_path):
    run_recipe("run").write(tmp_path / "run.yaml")
    done = launch_on_two_machines([tmp_path, tmp_path], "-m", "hf_accel.train", "--recipe", tmp_path / "run.yaml")
    assert [ended.returncode for ended in done] == [0, 0], done[1].stderr[-3000:]
    assert cli.run(verify.main, [str(tmp_path / "run")]) == 0
    report = RunReport.load(tmp_path / "run")
    assert report.train.world_size == 2
    assert not any("is not shared" in note for note in report.notes)
    assert len([*(tmp_path / "run" / "checkpoint-6").glob("rng_state_*")]) == 2


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
