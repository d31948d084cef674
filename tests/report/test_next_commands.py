"""The commands that a run suggests can be copied, parse, and name nothing of this machine."""

import importlib
import shlex
from pathlib import Path

import pytest

from hf_accel.report.next_commands import next_commands, place_below


@pytest.mark.parametrize("folder", ["outputs/digits/default", "outputs/my photos/it's", "-photos", "/data/run"])
def test_a_shell_reads_the_folder_as_one_word_whatever_its_name(folder):
    for following in next_commands(folder):
        words = shlex.split(following.command)
        assert words[0] == "hf-accel"
        assert Path(words[2]) == Path(folder)
        assert not words[2].startswith("-")


def test_every_suggested_verb_exists():
    verbs = [shlex.split(following.command)[1] for following in next_commands("run")]
    assert verbs == ["predict", "demo", "push", "evaluate"]
    assert all(callable(importlib.import_module(f"hf_accel.{verb}").main) for verb in verbs)


def test_what_is_suggested_for_texts_is_a_text():
    found = next_commands("run", task="text-classification")
    assert shlex.split(found[0].command) == ["hf-accel", "predict", "run", "It works, and it was cheap."]
    assert [shlex.split(following.command)[1] for following in found] == ["predict", "demo", "push", "evaluate"]


def test_a_folder_below_the_current_one_is_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_below(tmp_path / "outputs" / "run") == Path("outputs/run")
    assert place_below("outputs/run") == Path("outputs/run")
    assert place_below(tmp_path.parent / "elsewhere") is None
