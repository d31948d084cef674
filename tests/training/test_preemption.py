"""A signal ends a run at the end of a step, with a checkpoint from which the same command ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from hf_accel.cli import run as run_command
from hf_accel.errors import Stopped
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.train import main
from hf_accel.training.preemption import STOPPING, StopSignals
from hf_accel.training.trainer import ImageTrainer
from tests.support.two_processes import launch

CPU = torch.device("cpu")
OTHERS = [number for number in STOPPING if number != signal.SIGINT]


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """As in a terminal, also where the tests run under nohup, which ignores SIGHUP."""
    ignored = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def signals():
    with StopSignals().installed() as installed:
        yield installed


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_outside_of_the_training_ends_the_command_at_once(signals, number):
    with pytest.raises(Stopped) as error:
        os.kill(os.getpid(), number)
    assert error.value.number == number


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_within_the_training_waits_for_the_step(number, capfd):
    with StopSignals().installed() as signals:
        signals._waits_for_step[0] = 1
        os.kill(os.getpid(), number)
        assert signals.agreed(CPU) == number
        assert "a checkpoint is saved after this step" in capfd.readouterr().err
        for other in OTHERS:  # a scheduler repeats itself, and follows a notice with SIGTERM
            os.kill(os.getpid(), other)
        assert signals.agreed(CPU) == number
        with pytest.raises(Stopped):  # a person who does not want to wait
            os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == ""


def test_a_signal_that_no_step_followed_ends_the_command_after_the_training(signals):
    with pytest.raises(Stopped) as error, signals.waiting_for_a_step():
        os.kill(os.getpid(), signal.SIGTERM)
    assert error.value.number == signal.SIGTERM


def test_a_signal_that_is_ignored_stays_so_and_the_handlers_are_put_back():
    before = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with StopSignals().installed() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in STOPPING} == before


def test_in_another_thread_nothing_is_handled():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with StopSignals().installed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


FORKED = """
import os, signal, sys, time
from hf_accel.training.preemption import StopSignals
with StopSignals().installed() as signals:
    with signals.waiting_for_a_step():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(child, number)
        time.sleep(0.2)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended while the run trains"
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
"""


def test_a_process_that_reads_data_leaves_the_decision_to_the_run_and_can_be_ended_by_it():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Runs

SAVING = {
    "epoch": {"save_strategy": "epoch", "eval_strategy": "epoch"},
    "no": {"save_strategy": "no", "eval_strategy": "no"},
    "max_steps": {"max_steps": 5, "save_strategy": "no", "eval_strategy": "no"},
    "steps": {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2},
}
# Of two epochs of 19 rows in batches of 8: how the run saves, the step in which the signal comes, and where.
STOPS = [
    ("epoch", 2, "training_step"),
    ("epoch", 3, "training_step"),  # the last one of an epoch
    ("epoch", 3, "evaluation_loop"),
    ("epoch", 6, "training_step"),  # the last one
    ("no", 3, "training_step"),
    ("max_steps", 5, "training_step"),  # the last one, within an epoch
    ("steps", 2, "evaluation_loop"),
    ("steps", 5, "training_step"),
]


def signalled(monkeypatch, step, number, where="training_step"):
    """The process gets a signal within a step, or the evaluation that follows it."""
    original = getattr(ImageTrainer, where)
    pending = [step]

    def call(self, *args, **kwargs):
        if self.is_in_train and pending and self.state.global_step + (where == "training_step") == pending[0]:
            pending.clear()
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ImageTrainer, where, call)


def command(recipe, tmp_path):
    recipe.write(tmp_path / "recipe.yaml")
    return ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", str(recipe.output_dir)]


def outcome(folder):
    """What must not depend on how often a run was stopped."""
    report = RunReport.load(folder)
    history = [(entry["step"], entry["loss"], entry["validation_loss"]) for entry in report.history]
    return history, report.test, (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def wholes():
    """How a run saves -> the outcome of one that was not stopped; filled by the first test that needs it."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(("saving", "step", "where"), STOPS)
def test_a_stopped_run_resumes_and_ends_as_one_that_was_not_stopped(
    saving, step, where, wholes, tiny_recipe, tmp_path, monkeypatch, capsys
):
    patch = {"training": {"num_train_epochs": 2, "logging_steps": 4, **SAVING[saving]}}
    whole, cut = (tiny_recipe(patch, {"training": {"output_dir": str(tmp_path / name)}}) for name in ("whole", "cut"))
    if saving not in wholes:
        assert run_command(main, command(whole, tmp_path)) == 0
        wholes[saving] = outcome(whole.output_dir)
    with monkeypatch.context() as patched:
        signalled(patched, step, signal.SIGTERM, where)
        assert run_command(main, command(cut, tmp_path)) == 128 + signal.SIGTERM
    checkpoint = cut.output_dir / f"checkpoint-{step}"
    last_line = f"stopped by SIGTERM: {checkpoint} is saved. The same command resumes from it."
    assert capsys.readouterr().err.split()[-len(last_line.split()) :] == last_line.split()
    run = RunFolder(cut.output_dir)
    assert not run.is_finished
    assert run.checkpoints.newest_whole() == checkpoint
    assert run_command(main, command(cut, tmp_path)) == 0
    assert outcome(cut.output_dir) == wholes[saving]
    assert RunReport.load(cut.output_dir).train.resumes == 1
    assert RunReport.load(cut.output_dir).train.repeated_steps == 0


GROUP = """
import os, signal, sys
from hf_accel import cli, train
from hf_accel.training.trainer import ImageTrainer
step = ImageTrainer.training_step

def training_step(self, *args, **kwargs):
    if self.state.global_step == 2:
        os.killpg(0, getattr(signal, sys.argv[1]))
    return step(self, *args, **kwargs)

ImageTrainer.training_step = training_step
cli.run_and_exit(lambda argv: train.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_all_processes_of_a_run_leaves_those_alive_that_read_its_data(name, tiny_recipe, tmp_path):
    """As a terminal sends ^C, and as a scheduler notifies a job."""
    training = {"dataloader_num_workers": 2, "num_train_epochs": 2, "save_strategy": "no", "eval_strategy": "no"}
    recipe = tiny_recipe({"data": {"cache": "none"}, "training": training})
    (tmp_path / "group.py").write_text(GROUP)
    words = [sys.executable, str(tmp_path / "group.py"), name, *command(recipe, tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, start_new_session=True)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert RunFolder(recipe.output_dir).checkpoints.newest_whole().name == "checkpoint-3"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_upstreams_own_way_to_save_on_sigterm_does_not_make_a_stopped_run_count_as_finished(
    tiny_recipe, tmp_path, monkeypatch, capsys
):
    recipe = tiny_recipe({"training": {"num_train_epochs": 2, "enable_jit_checkpoint": True}})
    signalled(monkeypatch, 2, signal.SIGTERM)
    assert run_command(main, command(recipe, tmp_path)) == 128 + signal.SIGTERM
    assert not RunFolder(recipe.output_dir).is_finished
    assert (recipe.output_dir / "checkpoint-2").is_dir()


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_resume(tiny_recipe, tmp_path):
    """The first epoch has 3 steps; rank 1 alone is told to stop in the fourth, and rank 0 hears of it in the fifth."""
    training = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "no", "eval_strategy": "no"}
    whole, cut = (
        tiny_recipe({"training": {**training, "output_dir": str(tmp_path / name)}}) for name in ("whole", "cut")
    )
    done = in_two(cut, tmp_path, "1")
    assert done.returncode != 0
    assert "stopped by SIGTERM: " in done.stderr
    assert [path.name for path in RunFolder(cut.output_dir).checkpoints.all()] == ["checkpoint-5"]
    states = {path.name for path in (cut.output_dir / "checkpoint-5").glob("*_1.*")}
    assert states == {"rng_state_1.pth", "method_state_1.pth", "measurement_1.json"}
    assert RunFolder(cut.output_dir).checkpoints.newest_whole() is not None
    assert not RunFolder(cut.output_dir).is_finished
    for recipe in (cut, whole):
        done = in_two(recipe, tmp_path, "none")
        assert done.returncode == 0, done.stderr[-3000:]
    assert outcome(cut.output_dir) == outcome(whole.output_dir)


IN_TWO = """
import os, signal, sys
from hf_accel import cli, train
from hf_accel.training.trainer import ImageTrainer
step = ImageTrainer.training_step

def training_step(self, *args, **kwargs):
    assert self.args.world_size == 2
    if self.state.global_step == 3 and sys.argv[1] == os.environ["RANK"]:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *args, **kwargs)

ImageTrainer.training_step = training_step
cli.run_and_exit(lambda argv: train.main(sys.argv[2:]))
"""


def in_two(recipe, tmp_path, ranks):
    (tmp_path / "two.py").write_text(IN_TWO)
    return launch(tmp_path / "two.py", ranks, *command(recipe, tmp_path))
