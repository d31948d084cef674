"""A folder counts as whole only with its manifest, and every kind of damage is named."""

import json
import os
import shutil

import pytest

from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import checkpoint_damage, prune
from hf_accel.runs.folder import RunFolder
from tests.runs.test_checkpoints import interrupted, make, refused  # noqa: F401  fixtures
from tests.support.checkpoints import STATES, write_checkpoint
from tests.support.damage import FAULTS, flip_a_bit


@pytest.fixture
def folder(tmp_path):
    manifest.begin(tmp_path / "f")
    (tmp_path / "f" / "inner").mkdir()
    (tmp_path / "f" / "a.bin").write_bytes(bytes(1000))
    (tmp_path / "f" / "inner" / "b.bin").write_bytes(b"b")
    return tmp_path / "f"


def test_a_folder_is_not_whole_until_it_is_committed(folder):
    assert manifest.damage(folder).is_unfinished
    with pytest.raises(UserError, match="was not completely written"):
        manifest.refuse_damaged(folder)
    manifest.commit(folder, step=3)
    assert manifest.damage(folder) is None
    manifest.refuse_damaged(folder)
    assert set(manifest.read(folder)["files"]) == {"a.bin", "inner/b.bin"}
    assert manifest.read(folder)["step"] == 3


def test_beginning_again_deletes_what_an_earlier_attempt_left_unless_told_to_keep_it(folder):
    manifest.commit(folder)
    manifest.begin(folder, clear=False)
    assert manifest.damage(folder).is_unfinished
    assert (folder / "inner" / "b.bin").is_file()
    manifest.begin(folder)
    assert [path.name for path in folder.iterdir()] == [manifest.MANIFEST]


def test_every_file_is_on_the_disk_before_the_manifest_has_its_name(folder, monkeypatch):
    events = []
    fsync, replace = os.fsync, type(folder).replace

    def name_of(descriptor):
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr("os.fsync", lambda descriptor: (events.append(name_of(descriptor)), fsync(descriptor))[1])
    monkeypatch.setattr(
        type(folder), "replace", lambda self, to: (events.append(f"-> {to.name}"), replace(self, to))[1]
    )
    manifest.commit(folder)
    named = events.index(f"-> {manifest.MANIFEST}")
    assert {"a.bin", "b.bin", "inner", "f"} <= set(events[:named])
    assert events[named + 1 :] == ["f"]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"complete": 1}', "cannot be read"),
        ('{"complete": true}', "cannot be read"),
        ('{"complete": true, "files": {"a.bin": {"bytes": "1"}}}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"complete": false, "files": 3}', "was not completely written"),
    ],
)
def test_a_manifest_of_any_content_is_damage_and_not_a_crash(folder, content, got):
    (folder / manifest.MANIFEST).write_text(content)
    assert got in str(manifest.damage(folder))


def test_a_changed_file_names_itself_what_it_has_and_what_was_expected(folder):
    manifest.commit(folder)
    (folder / "a.bin").write_bytes(bytes(999))
    assert str(manifest.damage(folder)) == f"{folder / 'a.bin'}: has 999 bytes, expected 1,000 bytes"
    (folder / "a.bin").write_bytes(bytes(1000))
    flip_a_bit(folder / "a.bin")
    assert manifest.damage(folder, manifest.SIZES) is None
    assert manifest.damage(folder, largest_hashed=999) is None
    assert "its SHA-256 is " in str(manifest.damage(folder, largest_hashed=1000))
    with pytest.raises(UserError, match=r"if the change is yours, delete .*hf_accel_manifest\.json"):
        manifest.refuse_damaged(folder)
    (folder / manifest.MANIFEST).unlink()
    manifest.refuse_damaged(folder)


def test_files_that_come_later_are_not_damage_and_those_left_out_may_change(folder):
    manifest.commit(folder, left_out=(folder / "inner",))
    (folder / "inner" / "b.bin").unlink()
    (folder / "more.txt").write_text("more")
    assert manifest.damage(folder) is None


# Checkpoints


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_newest_checkpoint_is_named_and_the_one_before_is_used(fault, make, interrupted):  # noqa: F811
    older = interrupted.with_name("checkpoint-4")
    FAULTS[fault](interrupted, older)
    run = RunFolder.claim(make())
    assert run.checkpoint == older
    assert len(run.checkpoints.damaged) == 1
    assert str(interrupted) in str(run.checkpoints.damaged[0])
    with run.open(make()):  # it holds for a second look, too
        pass


def test_a_flipped_bit_is_found_in_every_file_of_a_checkpoint(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-8", 8)
    for path in sorted((tmp_path / "checkpoint-8").iterdir()):
        content = path.read_bytes()
        flip_a_bit(path)
        assert checkpoint_damage(tmp_path / "checkpoint-8") is not None, path
        path.write_bytes(content)
    assert checkpoint_damage(tmp_path / "checkpoint-8") is None


def test_where_all_checkpoints_are_damaged_the_run_is_refused_and_a_half_written_one_is_begun_again(make, interrupted):  # noqa: F811
    older = interrupted.with_name("checkpoint-4")
    flip_a_bit(interrupted / "model.safetensors")
    flip_a_bit(older / "optimizer.pt")
    message = refused(make())
    assert "model.safetensors" in message
    assert "optimizer.pt" in message
    assert "--overwrite" in message
    for checkpoint in (older, interrupted):
        manifest.begin(checkpoint)
    assert RunFolder.claim(make()).checkpoint is None


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(make, interrupted, tmp_path):  # noqa: F811
    flip_a_bit(interrupted / "scheduler.pt")
    recipe = make(resume_from_checkpoint=str(interrupted), output_dir=str(tmp_path / "other"))
    assert "scheduler.pt: its SHA-256" in refused(recipe)


def test_a_copy_of_a_run_keeps_its_checkpoints_and_one_of_another_run_is_not_mixed_in(make, interrupted, tmp_path):  # noqa: F811
    run = RunFolder(interrupted.parent)
    assert run.identity is not None
    shutil.rmtree(interrupted)
    write_checkpoint(interrupted, 8, run=run.identity)
    shutil.copytree(run.path, tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").checkpoints.newest_whole().name == "checkpoint-8"
    shutil.rmtree(interrupted)
    write_checkpoint(interrupted, 8, run="another")
    assert run.checkpoints.newest_whole().name == "checkpoint-4"
    assert "is a checkpoint of another run" in str(run.checkpoints.damaged[0])


def test_a_run_keeps_its_identity_when_it_is_resumed_and_gets_another_with_overwrite(make, interrupted):  # noqa: F811
    run = RunFolder.claim(make())
    before = run.identity
    with run.open(make()):
        assert run.identity == before
    again = RunFolder.claim(make(), overwrite=True)
    with again.open(make()):
        assert again.identity not in (None, before)


# Without a manifest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer_state.json", b""),
        ("trainer_state.json", b'{"global_step": 7}'),
        ("model.safetensors", b""),
        ("model.safetensors", (3).to_bytes(8, "little") + b"{} "[:2]),
        ("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        *((name, b"") for name in STATES),
        ("optimizer.pt", bytes(100)),
    ],
)
def test_a_checkpoint_of_an_earlier_version_is_refused_where_its_files_show_damage(tmp_path, name, content):
    place = write_checkpoint(tmp_path / "checkpoint-8", 8, sealed=False)
    assert checkpoint_damage(place) is None
    (place / name).write_bytes(content)
    assert name in str(checkpoint_damage(place))


def test_a_checkpoint_of_an_earlier_version_without_random_states_is_damaged(tmp_path):
    place = write_checkpoint(tmp_path / "checkpoint-8", 8, sealed=False)
    (place / "rng_state.pth").rename(place / "rng_state_1.pth")
    assert checkpoint_damage(place) is None
    (place / "rng_state_1.pth").unlink()
    assert "rng_state.pth: is missing" in str(checkpoint_damage(place))


# Deleting old ones


def test_old_checkpoints_are_deleted_by_step_whatever_their_dates_say(tmp_path):
    for step in (2, 4, 10, 12):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
        os.utime(tmp_path / f"checkpoint-{step}", (2e9 - step, 2e9 - step))
    places = {step: tmp_path / f"checkpoint-{step}" for step in (2, 4, 10, 12)}
    prune(places.values(), 3, [places[12]])
    assert left(tmp_path) == {4, 10, 12}
    prune([path for path in places.values() if path.is_dir()], 2, [places[12], places[4]])
    assert left(tmp_path) == {4, 12}
    prune([places[4], places[12]], 1, [places[12], places[4]])  # the best one is never deleted
    assert left(tmp_path) == {4, 12}


def test_a_damaged_checkpoint_is_deleted_before_an_older_whole_one(tmp_path):
    places = [write_checkpoint(tmp_path / f"checkpoint-{step}", step) for step in (2, 4, 6)]
    (places[1] / "optimizer.pt").unlink()
    prune(places, 2, [places[2]])
    assert left(tmp_path) == {2, 6}


def left(folder):
    return {int(path.name.rpartition("-")[2]) for path in folder.iterdir()}


def test_a_manifest_lists_the_files_of_all_processes(tmp_path):
    place = write_checkpoint(tmp_path / "checkpoint-8", 8, sealed=False)
    (place / "rng_state.pth").rename(place / "rng_state_0.pth")
    shutil.copy(place / "rng_state_0.pth", place / "rng_state_1.pth")
    manifest.commit(place, step=8)
    assert json.loads((place / manifest.MANIFEST).read_text())["files"].keys() >= {"rng_state_0.pth", "rng_state_1.pth"}
    (place / "rng_state_1.pth").unlink()
    assert "rng_state_1.pth: is missing" in str(checkpoint_damage(place))
