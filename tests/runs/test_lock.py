"""Two processes on one folder: the second is refused, and a process that was killed blocks nobody."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_accel import push
from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import IN_USE, RunFolder
from hf_accel.runs.lock import sole_use
from hf_accel.train import main
from tests.support.hub_contents import write_run

HOLD = (
    "import sys, time; from pathlib import Path; from hf_accel.runs.lock import sole_use\n"
    "with sole_use(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that works in tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    with pytest.raises(UserError, match="another comparison is running there"), sole_use(tmp_path / "run"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with sole_use(tmp_path / "run"):
        pass


def test_training_in_a_folder_in_use_is_exit_code_2_and_one_message(holder, tmp_path, capsys):
    start = time.monotonic()
    assert run(main, ["--recipe", "digits", "--overwrite", "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: {IN_USE}" in error
    assert len(error.splitlines()) <= 2  # one more for a default that was taken
    assert time.monotonic() - start < 5  # before data and model are loaded
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.slow
def test_of_two_runs_on_one_folder_the_second_is_refused_and_resumes_the_first_after_a_kill(photos, tmp_path):
    folder = tmp_path / "run"
    flags = {"--data.name": photos, "--output_dir": folder, "--max_steps": 60, "--save_steps": 10,
             "--save_strategy": "steps", "--eval_strategy": "steps", "--eval_steps": 10, "--data.image_size": 16,
             "--per_device_train_batch_size": 8, "--model.name": "hf_accel/cifar_resnet20",
             "--model.pretrained": "false", "--model.args": "{depth: 8, width: 4}", "--model.channels_last": "false"}  # fmt: skip
    command = [sys.executable, "-m", "hf_accel.train", "--recipe", "finetune"]
    command += [str(word) for pair in flags.items() for word in pair]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        while RunFolder(folder).checkpoints.last() is None:
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # it holds the folder, and does not finish while the second one starts
        second = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert IN_USE in second.stderr
        assert "Traceback" not in second.stderr
        first.send_signal(signal.SIGKILL)
    assert not (folder / "report.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "resuming from checkpoint-" in again.stderr
    assert RunReport.load(folder).train.resumes == 1


def test_pushing_a_folder_in_use_is_exit_code_2(tmp_path, holder, capsys):
    write_run(tmp_path / "run")
    assert run(push.main, [str(tmp_path / "run")]) == 2
    assert IN_USE in capsys.readouterr().err


def test_a_folder_where_nothing_can_be_written_is_used_without_a_lock(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("hf_accel.runs.lock.FileLock.acquire", refused)
    used = []
    with sole_use(Path(tmp_path)):
        used.append(True)
    assert used == [True]
