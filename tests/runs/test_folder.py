"""The folder of a run: which files are the run's, which it may delete, and which folders are refused."""

import ast
import json
import logging
import os
from pathlib import Path

import pytest

import hf_accel
from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError
from hf_accel.files import RUN_MARK
from hf_accel.runs.folder import LEFT, RunFolder
from hf_accel.runs.lock import sole_use
from hf_accel.runs.log import note_end_in_log, start_log
from hf_accel.runs.named_model import model_place
from hf_accel.runs.output_place import writable_place
from tests.support.checkpoints import write_checkpoint

REPORT = {"schema": 1, "recipe": "digits", "train": {}, "environment": {}}  # what any report has


@pytest.fixture
def recipe(tmp_path):
    return load_recipe("digits", overrides={"training": {"output_dir": str(tmp_path / "run")}})


def fill(folder: Path, *names: str) -> dict[str, bytes]:
    """Write files by these names, folders included; returns the content of the whole folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in (".lock", RUN_MARK)}


def do_run(recipe, *names: str, overwrite: bool = False, finish: bool = True) -> RunFolder:
    """A run that writes these files, as `train` does it; one that does not finish dies silently."""
    run = RunFolder.claim(recipe, overwrite)
    held = run.open(recipe)
    held.__enter__()
    fill(run.path, *names)
    if finish:
        run.report.write_text(json.dumps(REPORT))
        held.__exit__(None, None, None)
    else:
        with pytest.raises(KeyboardInterrupt):
            held.gen.throw(KeyboardInterrupt())
    return run


USERS_OWN = ("model/weights.bin", "runs/2024/notes.md", "plots/mine.svg", "log.txt", "checkpoint-old/a.pt")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "names", [USERS_OWN, *((name,) for name in USERS_OWN), ("checkpoint-7/a.pt",), ("report.json",)]
)
def test_files_of_other_origin_are_refused_by_name_and_survive(recipe, names, overwrite):
    folder = recipe.output_dir
    before = fill(folder, "mine.txt", *names)
    with pytest.raises(UserError) as refused:
        RunFolder.claim(recipe, overwrite)
    for name in names:
        assert name.split("/")[0] in str(refused.value)
    assert "mine.txt" not in str(refused.value)
    assert content(folder) == before
    assert not (folder / RUN_MARK).exists()


def test_a_dangling_link_by_a_name_of_a_run_is_not_followed(recipe):
    folder = recipe.output_dir
    folder.mkdir()
    (folder / "log.txt").symlink_to(folder.parent / "elsewhere.txt")
    with pytest.raises(UserError, match=r"log\.txt"):
        RunFolder.claim(recipe)


def test_a_folder_with_other_files_is_used_and_they_stay(recipe):
    folder = recipe.output_dir
    before = fill(folder, "mine.txt", "data/cat/1.png")
    run = do_run(recipe, "model/config.json")
    run = do_run(recipe, "plots/loss.svg", overwrite=True)
    assert {name: text for name, text in content(folder).items() if name in before} == before
    assert not run.model.exists()


def test_overwrite_deletes_the_files_of_the_run_and_none_that_were_added_since(recipe):
    folder = recipe.output_dir
    run = do_run(recipe, "model/config.json", "model/examples/1.png", "plots/loss.svg")
    write_checkpoint(run.path / "checkpoint-3", 3)
    fill(folder, "model/mine.txt", "plots/mine.svg")
    for _ in range(2):  # the second time, the files that were not deleted are still not the run's
        do_run(recipe, "model/config.json", overwrite=True)
        assert set(content(folder)) == {"model/mine.txt", "plots/mine.svg", "model/config.json", "report.json",
                                        "recipe.yaml", "log.txt"}  # fmt: skip
    fill(folder, "checkpoint-old/a.pt")  # the Trainer deletes by such names
    with pytest.raises(UserError, match="checkpoint-old"):
        RunFolder.claim(recipe, overwrite=True)


def test_overwrite_of_a_run_that_died_deletes_all_of_it_but_its_curves(recipe):
    do_run(recipe, "model/config.json", "runs/event.1", "checkpoint-3/model.safetensors", finish=False)
    run = RunFolder.claim(recipe, overwrite=True)
    with run.open(recipe):
        assert set(content(run.path)) == {"recipe.yaml", "log.txt", "runs/event.1"}


def test_overwrite_keeps_the_curves_of_earlier_runs_for_the_tracker(recipe):
    do_run(recipe, "model/config.json", "runs/event.1")
    do_run(recipe, "model/config.json", "runs/event.2", overwrite=True)
    run = do_run(recipe, "model/config.json", "runs/event.3", overwrite=True)
    kept = {name for name in content(run.path) if name.startswith("runs/")}
    assert kept == {"runs/event.1", "runs/event.2", "runs/event.3"}
    RunFolder.claim(recipe, overwrite=True)  # they are still the run's own, and not files of other origin


def test_additions_to_a_finished_run_are_its_own(recipe):
    run = do_run(recipe, "model/config.json")
    fill(run.path, "model/mine.txt")
    with run.additions():
        fill(run.path, "model/README.md")
    do_run(recipe, overwrite=True)
    assert set(content(run.path)) == {"model/mine.txt", "report.json", "recipe.yaml", "log.txt"}


def test_a_mark_that_lists_files_elsewhere_deletes_none_of_them(recipe):
    run = do_run(recipe, "model/config.json")
    outside = run.path.parent / "outside.txt"
    outside.write_text("kept")
    (run.path / "mine.txt").write_text("kept")
    mark = json.loads((run.path / RUN_MARK).read_text())
    mark["files"] += ["../outside.txt", str(outside), "mine.txt"]
    (run.path / RUN_MARK).write_text(json.dumps(mark))
    do_run(recipe, overwrite=True)
    assert outside.read_text() == (run.path / "mine.txt").read_text() == "kept"


def test_a_finished_run_of_an_earlier_version_is_known_by_its_report(recipe):
    folder = recipe.output_dir
    fill(folder, "model/config.json", "plots/loss.svg", "log.txt", "checkpoint-3/trainer_state.json")
    (folder / "report.json").write_text(json.dumps(REPORT))
    with pytest.raises(UserError, match="holds a finished run, which is kept"):
        RunFolder.claim(recipe)
    do_run(recipe, overwrite=True)
    assert set(content(folder)) == {"report.json", "recipe.yaml", "log.txt"}


def test_an_unfinished_run_of_an_earlier_version_is_known_by_its_recipe_and_resumed(recipe):
    folder = recipe.output_dir
    fill(folder, "log.txt", "checkpoint-20/a.pt")
    for step in (3, 12):
        write_checkpoint(folder / f"checkpoint-{step}", step, sealed=False)
    recipe.write(folder / "recipe.yaml")
    assert RunFolder.claim(recipe).checkpoint == folder / "checkpoint-12"
    other = load_recipe("digits", overrides={"training": {"output_dir": str(folder), "seed": 5}})
    with pytest.raises(UserError, match=r"other settings \(training\.seed\)"):
        RunFolder.claim(other)


def test_a_recipe_that_a_person_wrote_does_not_make_a_folder_a_run(recipe):
    folder = recipe.output_dir
    fill(folder, "model/config.json")
    (folder / "recipe.yaml").write_text("extends: digits\nname: mine\n")
    with pytest.raises(UserError, match=r"model, recipe\.yaml"):
        RunFolder.claim(recipe, overwrite=True)


# The place


def test_a_dangling_link_as_output_is_refused(recipe, tmp_path):
    recipe.output_dir.symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"is a link to .*gone, which does not exist"):
        RunFolder.claim(recipe)
    assert not (tmp_path / "gone").exists()


def test_a_dangling_link_above_the_output_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    recipe = load_recipe("digits", overrides={"training": {"output_dir": str(tmp_path / "link" / "run")}})
    with pytest.raises(UserError, match="which does not exist"):
        RunFolder.claim(recipe)


@pytest.mark.parametrize("name", ["é" * 128, "/".join(["a" * 250] * 16)], ids=["name", "path"])
def test_a_path_that_is_too_long_is_refused(tmp_path, name):
    recipe = load_recipe("digits", overrides={"training": {"output_dir": str(tmp_path / name)}})
    with pytest.raises(UserError, match="is too long"):
        RunFolder.claim(recipe)
    assert not any(tmp_path.iterdir())


def test_a_link_to_a_folder_is_an_output(recipe, tmp_path):
    (tmp_path / "disk").mkdir()
    recipe.output_dir.symlink_to(tmp_path / "disk")
    do_run(recipe, "model/config.json")
    assert (tmp_path / "disk" / "model" / "config.json").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(recipe, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="is not a folder that can be written"):
        RunFolder.claim(recipe)


def test_a_folder_that_the_system_says_is_not_writable_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="is not a folder that can be written"):
        RunFolder.claim(recipe)
    assert not recipe.output_dir.exists()


# Two runs


def test_a_folder_in_use_is_refused_at_once(recipe):
    run = RunFolder.claim(recipe)
    with run.open(recipe), pytest.raises(UserError, match="another process trains or pushes there"):
        RunFolder.claim(recipe, overwrite=True)


def test_a_run_that_began_before_another_one_opened_the_folder_is_refused(recipe):
    first, second = RunFolder.claim(recipe), RunFolder.claim(recipe)
    with first.open(recipe), pytest.raises(UserError, match="another process trains or pushes"), second.open(recipe):
        pass


@pytest.mark.parametrize("finish", [False, True])
def test_a_run_that_began_before_another_one_used_the_folder_is_refused(recipe, finish):
    late = RunFolder.claim(recipe)
    write_checkpoint(do_run(recipe, finish=finish).path / "checkpoint-3", 3)
    before = content(recipe.output_dir)
    with pytest.raises(UserError, match="finished run" if finish else "another run has used"), late.open(recipe):
        pass
    assert content(recipe.output_dir) == before


def test_only_the_first_of_several_processes_locks_and_writes(recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with sole_use(recipe.output_dir):  # as rank 0 does
        run = RunFolder.claim(recipe)
        with run.open(recipe):
            assert content(run.path) == {}


# What FOLDER means


def test_a_command_finds_the_run_of_a_folder_a_model_or_a_checkpoint(recipe, tmp_path):
    run = do_run(recipe, "model/config.json", "checkpoint-3/config.json")
    for place in (run.path, run.model, run.path / "checkpoint-3"):
        assert RunFolder.meant_by(place).path == run.path
    assert RunFolder.meant_by(tmp_path) is None
    assert RunFolder.meant_by("timm/resnet18") is None
    assert model_place(str(run.path)) == str(run.model)
    assert model_place(str(run.model)) == str(run.model)
    assert model_place("timm/resnet18") == "timm/resnet18"


def test_no_other_module_spells_the_name_of_a_file_of_a_run():
    """The page of a comparison, a profile or a search lies in a folder of its own, which is not a run's."""
    names = {*LEFT, RUN_MARK, "checkpoint-"} - {"model", "runs", "plots"}  # those three are words of other subjects too
    package = Path(hf_accel.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
                found.add((path.relative_to(package).as_posix(), node.value))
    assert {item for item in found if item[0] != "runs/folder.py"} == {
        ("comparison/page.py", "report.html"),
        ("comparison/runs.py", "report.html"),
        ("profiling/page.py", "report.html"),
        ("profiling/runs.py", "report.html"),
        ("tune.py", "report.html"),
        ("tuning/page.py", "report.html"),
        ("files.py", ".hf_accel.json"),  # below this room: pictures in a run's folder are not the user's
        ("data/sources.py", "recipe.yaml"),  # below this room: a run's folder is not taken for data
    }


def test_a_recipe_is_read_at_the_door_and_handed_on():
    """Nothing between the command and the report reads the recipe of a run again."""
    package = Path(hf_accel.__file__).parent
    readers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_recipe"
    }
    doors = {name for name in readers if "/" not in name}
    processes = {"training/profiled.py", "tuning/trial_process.py"}  # each is the main module of a process of its own
    assert readers - doors - processes == {"report/finished_run.py", "runs/folder.py", "tuning/candidates.py"}


def test_a_path_with_a_null_character_is_refused():
    with pytest.raises(UserError, match="holds a null character"):
        writable_place(Path("run\0x"))


def test_an_error_that_torch_raises_while_the_log_is_written_costs_no_line(tmp_path, monkeypatch):
    start_log(tmp_path / "log.txt")
    original, raised = logging.StreamHandler.flush, []

    def flush(self):
        original(self)
        if not raised:
            raised.append(self)
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(logging.StreamHandler, "flush", flush)
    note_end_in_log(ConnectionResetError("reset"))
    assert "reset" in (tmp_path / "log.txt").read_text()


def test_an_owner_on_the_hub_may_be_called_as_a_folder_here(tmp_path, monkeypatch):
    (tmp_path / "google" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_place("google/vit-base-patch16-224") == "google/vit-base-patch16-224"
    with pytest.raises(UserError, match=r"no such folder\. Did you mean photos\?"):
        model_place("google/photo")


def test_a_run_is_not_mixed_with_the_images_it_is_trained_on(tmp_path):
    fill(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg")

    def claim(output: str) -> RunFolder:
        where = {"data": {"name": str(tmp_path / "photos")}, "training": {"output_dir": str(tmp_path / output)}}
        return RunFolder.claim(load_recipe("finetune", overrides=where))

    for output in ("photos", "photos/cat"):
        with pytest.raises(UserError, match="belongs to the images of"):
            claim(output)
    claim("photos/outputs/x")
    claim("photos2")


@pytest.mark.parametrize("name", ["", " ", "a b/c", "--x=./y", "a/b=c"])
def test_a_name_that_neither_a_folder_nor_a_model_on_the_hub_can_have_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"names no model|no such folder"):
        model_place(name)


def test_the_folder_of_an_unfinished_run_has_no_model_and_names_its_checkpoint(recipe):
    run = do_run(recipe, finish=False)
    write_checkpoint(run.path / "checkpoint-3", 3)
    with pytest.raises(
        UserError, match=r"has not finished, so it has no model yet\. .* last checkpoint, .*checkpoint-3"
    ):
        model_place(str(run.path))
    assert model_place(str(run.path / "checkpoint-3"))
