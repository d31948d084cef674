"""What a disk, a person or a copy can do to the checkpoints of a run: nothing is lost silently, and nothing crashes."""

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_accel.cli import run as run_command
from hf_accel.config.recipe import Recipe, apply_patch, load_recipe
from hf_accel.errors import RunError, UserError, machine_failure
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.train import main
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer
from tests.conftest import TINY, write_photos
from tests.support.damage import FAULTS, flip_a_bit
from tests.support.faulty_disk import FaultyDisk

pytestmark = pytest.mark.slow

SAVED = {"num_train_epochs": 2, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps",
         "eval_steps": 2, "optim": "adamw_torch"}  # fmt: skip


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing of it sees this coming."""


@dataclass(frozen=True)
class KilledRun:
    """A run of 6 steps that was killed in the fifth: it has checkpoints of steps 2 and 4.

    Attributes:
        words: the command that started it, and resumes it.
        whole: the outcome of a run that was not killed.
    """

    folder: Path
    pristine: Path
    recipe: Recipe
    words: list[str]
    whole: tuple

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.pristine, self.folder)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    place = tmp_path_factory.mktemp("killed")
    data = {"data": {"name": str(write_photos(place))}, "training": {**SAVED, "output_dir": str(place / "run")}}
    recipe = load_recipe("finetune", overrides=apply_patch(TINY, data))
    recipe.write(place / "recipe.yaml")
    words = ["--recipe", str(place / "recipe.yaml"), "--output_dir", str(place / "run")]
    assert run_command(main, words) == 0
    whole = outcome(place / "run")
    shutil.rmtree(place / "run")
    step = ImageTrainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise Killed
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ImageTrainer, "training_step", killed)
        with pytest.raises(Killed):
            run_command(main, words)
    shutil.copytree(place / "run", place / "pristine")
    return KilledRun(place / "run", place / "pristine", recipe, words, whole)


@pytest.fixture
def killed(killed_once):
    killed_once.restore()
    return killed_once


def outcome(folder):
    """What must not depend on what happened to the run."""
    report = RunReport.load(folder)
    history = [(entry["step"], entry["loss"], entry["validation_loss"]) for entry in report.history]
    return history, report.test, (folder / "model" / "model.safetensors").read_bytes()


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A fault in the newest checkpoint


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_with_a_fault_in_its_newest_checkpoint_names_it_and_ends_as_if_it_were_whole(fault, killed, capsys):
    newest = killed.folder / "checkpoint-4"
    FAULTS[fault](newest, newest.with_name("checkpoint-2"))
    assert run_command(main, killed.words) == 0
    error = "".join(capsys.readouterr().err.split())  # long paths are wrapped
    assert f"{newest}" in error
    assert "thischeckpointisnotused" in error
    assert "resumingfromcheckpoint-2" in error
    assert outcome(killed.folder) == killed.whole


def test_a_run_of_an_earlier_version_is_resumed_and_says_that_its_content_is_not_checked(killed, capsys):
    for checkpoint in RunFolder(killed.folder).checkpoints.all():
        (checkpoint / "hf_accel_manifest.json").unlink()
    assert run_command(main, killed.words) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert "checkpoint-4 has no manifest: its files are there, but their content cannot be checked" in error
    assert outcome(killed.folder) == killed.whole


def test_a_best_checkpoint_that_is_damaged_is_not_the_model_that_is_kept(killed, capsys):
    step = int(
        re.search(r'"best_global_step": (\d)', (killed.folder / "checkpoint-4/trainer_state.json").read_text())[1]
    )
    best = killed.folder / f"checkpoint-{step}"
    trainer = build_trainer(killed.recipe)
    trainer.state.best_model_checkpoint = str(best)
    trainer._load_best_model()
    flip_a_bit(best / "model.safetensors")
    with pytest.raises(RunError, match=r"the best checkpoint is damaged \(.*model\.safetensors"):
        trainer._load_best_model()


def test_from_python_the_newest_whole_checkpoint_is_taken_and_a_damaged_one_refused(killed):
    flip_a_bit(killed.folder / "checkpoint-4" / "optimizer.pt")
    trainer = build_trainer(killed.recipe)
    with pytest.raises(UserError, match=r"optimizer\.pt: its SHA-256"):
        trainer.train(resume_from_checkpoint=str(killed.folder / "checkpoint-4"))
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6


# A disk that fails while a checkpoint is saved


@pytest.fixture(scope="module")
def saving(killed_once):
    """A trainer that stands at step 4, with checkpoint 2 alone on the disk, which it deletes when checkpoint 4 is whole."""
    killed_once.restore()
    trainer = build_trainer(killed_once.recipe)
    trainer.train(resume_from_checkpoint=str(killed_once.folder / "checkpoint-4"))
    trainer.state.global_step = 4
    trainer.state.best_global_step = trainer.state.best_model_checkpoint = None
    trainer.args.save_total_limit = 1
    return trainer


def only_checkpoint_2(killed):
    killed.restore()
    shutil.rmtree(killed.folder / "checkpoint-4")
    return content(killed.folder / "checkpoint-2")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_whichever_operation_of_a_save_fails_the_last_whole_checkpoint_stays_and_the_message_is_one_line(
    error, for_good, saving, killed_once
):
    disk = FaultyDisk(killed_once.folder)
    only_checkpoint_2(killed_once)
    with disk.mounted():
        saving._save_checkpoint(saving.model, None)
    assert {path.name for path in RunFolder(killed_once.folder).checkpoints.all()} == {"checkpoint-4"}
    operations = len(disk.done)
    assert {what.split()[0] for what in disk.done} == {"write", "fsync", "rename", "mkdir"}
    kept = {2: 0, 4: 0}
    for number in range(1, operations + 1):
        before = only_checkpoint_2(killed_once)
        disk = FaultyDisk(killed_once.folder, number, error, for_good)
        with disk.mounted(), pytest.raises(OSError, match=os.strerror(error)) as raised:
            saving._save_checkpoint(saving.model, None)
        message = machine_failure(raised.value)
        assert message is not None
        assert "\n" not in message
        newest = RunFolder(killed_once.folder).checkpoints.newest_whole()
        step = int(newest.name.rpartition("-")[2])
        kept[step] += 1
        assert content(killed_once.folder / "checkpoint-2") == before, disk.done[-1]
        if step == 4:  # it failed after the manifest had its name
            assert number == operations
        saving._save_checkpoint(saving.model, None)  # there is space again
        assert RunFolder(killed_once.folder).checkpoints.newest_whole().name == "checkpoint-4"
    assert kept == {2: operations - 1, 4: 1}
    assert operations > 30
