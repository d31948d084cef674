"""`hf-accel verify`: 0 for what is as it was written, 1 with the name of the file for what is not, 2 for all else."""

import json
import shutil

import pytest

from hf_accel import evaluate, push, verify
from hf_accel.cli import run
from hf_accel.predict import main as predict_main
from hf_accel.runs import manifest
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.named_model import model_place
from hf_accel.train import main as train_main
from hf_accel.train import train
from tests.runs.test_folder import REPORT, do_run, recipe  # noqa: F401  a fixture
from tests.support.checkpoints import write_checkpoint
from tests.support.damage import flip_a_bit


@pytest.fixture
def finished(recipe):  # noqa: F811
    """A run with a model and two checkpoints, none of which was trained."""
    made = do_run(recipe, "model/config.json", "model/model.safetensors", "model/README.md", "log.txt")
    made.seal_model()
    made.record_results({made.report: json.dumps(REPORT), made.history: "step\n"})
    made.history.write_text("step\n")
    for step in (4, 8):
        write_checkpoint(made.path / f"checkpoint-{step}", step, run=made.identity)
    return made


def verdict(folder, capsys):
    """The exit code, and the document of --json."""
    code = run(verify.main, [str(folder), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_run_is_whole_part_by_part(finished, capsys):
    code, document = verdict(finished.path, capsys)
    assert (code, document["whole"]) == (0, True)
    parts = [(part["what"], part["files"]) for part in document["parts"]]
    assert parts == [("finished run", 4), ("model", 2), ("checkpoint", 7), ("checkpoint", 7)]
    assert run(verify.main, [str(finished.path)]) == 0
    shown = capsys.readouterr().out
    assert f"{finished.path / 'checkpoint-8'}: checkpoint, whole (7 files)" in shown
    assert run(verify.main, [str(finished.path), "--quiet"]) == 0
    assert capsys.readouterr().out == f"{finished.path}: whole\n"


@pytest.mark.parametrize(
    "name", ["report.json", "recipe.yaml", "history.csv", "model/model.safetensors", "model/hf_accel_manifest.json",
             "checkpoint-4/optimizer.pt", "checkpoint-8/hf_accel_manifest.json", ".hf_accel.json"]
)  # fmt: skip
def test_a_flipped_bit_is_exit_code_1_and_its_file(finished, name, capsys):
    file = finished.path / name
    content = bytearray(file.read_bytes())
    content[0] ^= 1  # in the mark, a brace: it cannot be read any more
    file.write_bytes(content)
    code, document = verdict(finished.path, capsys)
    assert (code, document["whole"]) == (1, False)
    damages = [part["damage"] for part in document["parts"] if part["damage"]]
    assert any(str(file) in damage and "expected" in damage for damage in damages)


def test_a_part_is_verified_alone(finished, capsys):
    flip_a_bit(finished.path / "checkpoint-4" / "optimizer.pt")
    assert verdict(finished.path / "checkpoint-4", capsys)[0] == 1
    assert verdict(finished.path / "checkpoint-8", capsys)[0] == 0
    assert verdict(finished.model, capsys)[0] == 0
    (finished.model / "model.safetensors").unlink()
    code, document = verdict(finished.model, capsys)
    assert code == 1
    assert "model.safetensors: is missing, expected" in document["parts"][0]["damage"]
    shutil.rmtree(finished.path / "checkpoint-8")
    shutil.copytree(finished.path / "checkpoint-4", finished.path / "checkpoint-8")
    flip_a_bit(finished.path / "checkpoint-8" / "optimizer.pt")  # back to what it was: whole, but of another step
    assert "is the checkpoint of step 4" in verdict(finished.path / "checkpoint-8", capsys)[1]["parts"][0]["damage"]


def test_what_may_be_written_again_is_not_damage(finished, capsys):
    finished.card.write_text("another card")
    finished.page.write_text("a page")
    finished.log.write_text("")
    assert verdict(finished.path, capsys)[0] == 0


def test_a_run_without_its_model_is_damaged_unless_it_was_kept_for_its_figures(finished, capsys):
    shutil.copytree(finished.path, finished.path.with_name("figures"))
    shutil.rmtree(finished.model)
    assert verdict(finished.path, capsys)[0] == 1
    RunFolder(finished.path.with_name("figures")).remove_weights()
    code, document = verdict(finished.path.with_name("figures"), capsys)
    assert code == 0
    assert [part["files"] for part in document["parts"]] == [3]


def test_an_unfinished_run_says_what_it_resumes_from(recipe, capsys):  # noqa: F811
    made = do_run(recipe, finish=False)
    assert "it has no checkpoint yet" in str(verdict(made.path, capsys)[1]["parts"])
    write_checkpoint(made.path / "checkpoint-4", 4)
    manifest.begin(made.path / "checkpoint-8")
    code, document = verdict(made.path, capsys)
    assert code == 1
    assert "resumes from checkpoint-4" in str(document["parts"])
    assert "checkpoint-8: was not completely written" in str(document["parts"])


def test_what_an_earlier_version_wrote_is_checked_as_far_as_it_can_be(finished, capsys):
    for folder in (finished.model, finished.path / "checkpoint-8"):
        (folder / "hf_accel_manifest.json").unlink()
    write_checkpoint(finished.path / "model-of-before", 3, sealed=False)
    (finished.path / "model-of-before" / "trainer_state.json").unlink()
    for folder in (finished.path / "checkpoint-8", finished.path / "model-of-before"):
        code, document = verdict(folder, capsys)
        assert code == 0
        assert "its contents cannot be checked" in document["parts"][0]["note"]
        flip_a_bit(folder / "optimizer.pt")
        (folder / "model.safetensors").write_bytes(b"")
        assert verdict(folder, capsys)[0] == 1


@pytest.mark.parametrize("name", ["missing", "file", "folder", "timm/resnet18"])
def test_what_is_none_of_these_is_exit_code_2_and_one_message(name, tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    assert run(verify.main, [str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / name}: " in error.replace("\n  ", " ")
    assert "expected" in error.lower()


@pytest.mark.slow
def test_commands_refuse_a_damaged_model(tiny_recipe, photos, capsys):
    folder = train(tiny_recipe())
    assert run(verify.main, [str(folder)]) == 0
    photo = str(photos / "test" / "red" / "00.png")
    flip_a_bit(folder / "model" / "model.safetensors")
    fine_tune = [
        "--model.name",
        str(folder / "model"),
        "--data.name",
        str(photos),
        "--output_dir",
        str(folder / "more"),
    ]
    for main, words in (
        (train_main, fine_tune),
        (evaluate.main, [str(folder)]),
        (evaluate.main, [str(folder / "model"), "--data.name", str(photos)]),
        (predict_main, [str(folder), photo]),
        (push.main, [str(folder)]),
    ):
        capsys.readouterr()
        assert run(main, words) == 2
        assert "model.safetensors: its SHA-256 is " in " ".join(capsys.readouterr().err.split())
    (folder / "model" / "hf_accel_manifest.json").unlink()  # the change is the user's
    assert run(predict_main, [str(folder), photo]) == 0
    assert run(verify.main, [str(folder)]) == 1  # the run is not what it was


def test_a_file_of_another_tool_does_not_make_a_model_damaged(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("of a web page")
    assert model_place(str(tmp_path)) == str(tmp_path)
