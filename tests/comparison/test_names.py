"""The recipes that `compare --recipe` names, globs included."""

import pytest

from hf_accel import compare
from hf_accel.cli import run
from hf_accel.comparison.names import expand_recipes, folder_name
from hf_accel.comparison.schema import Comparison
from hf_accel.config.recipe import shipped_recipes
from hf_accel.errors import UserError


def test_a_glob_means_the_shipped_recipes_that_match_it():
    found = expand_recipes(["zoo_*_cifar10"])
    assert found == [name for name in shipped_recipes() if name.startswith("zoo_") and name.endswith("_cifar10")]
    assert len(found) > 8
    assert expand_recipes(["digits", "speedrun_*_9[46]"]) == ["digits", "speedrun_cifar10_94", "speedrun_cifar10_96"]


def test_a_glob_with_a_slash_or_an_ending_means_files_and_not_parts_of_recipes(tmp_path, monkeypatch):
    for name in ("a.yaml", "b.yml", "_shared.yaml", "c.txt"):
        (tmp_path / name).write_text("extends: digits\n")
    assert expand_recipes([f"{tmp_path}/*"]) == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yml")]
    monkeypatch.chdir(tmp_path)
    assert expand_recipes(["*.yaml"]) == ["a.yaml"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_recipes(["~/a*"]) == [str(tmp_path / "a.yaml")]


def test_a_file_with_the_name_of_a_glob_is_that_file(tmp_path):
    path = tmp_path / "mine[1].yaml"
    path.write_text("extends: digits\n")
    assert expand_recipes([str(path)]) == [str(path)]


def test_a_recipe_that_several_globs_match_is_one_row_and_one_that_is_named_twice_stays_a_mistake():
    once = ["speedrun_cifar10_94", "speedrun_cifar10_96"]
    assert expand_recipes(["speedrun_*", "*_94"]) == once
    assert sorted(expand_recipes(["speedrun_*", "speedrun_cifar10_94"])) == once
    assert expand_recipes(["digits", "digits"]) == ["digits", "digits"]


@pytest.mark.parametrize(
    ("glob", "told"),
    [
        ("zoo_*_resnet18_cifar10", "no shipped recipe matches. Did you mean zoo_resnet18_cifar10"),
        ("/nowhere/*.yaml", "no recipe file matches. There are no YAML files in /nowhere."),
    ],
)
def test_a_glob_that_nothing_matches_names_the_nearest(glob, told, capsys, tmp_path):
    assert run(compare.main, ["--recipe", glob, "--output_dir", str(tmp_path / "out")]) == 2
    assert f"--recipe {glob}: {told}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_glob_of_files_that_nothing_matches_names_the_nearest_file(tmp_path):
    (tmp_path / "resnet.yaml").write_text("extends: digits\n")
    with pytest.raises(UserError, match=r"Did you mean .*/resnet\.yaml"):
        expand_recipes([f"{tmp_path}/resnets*.yaml"])


def test_the_folder_of_many_recipes_has_a_short_name_that_no_other_list_has():
    assert folder_name(["a", "b", "a"]) == "a+b"
    many = [f"recipe_number_{number}" for number in range(20)]
    name = folder_name(many)
    assert name.startswith("recipe_number_0+19_more-")
    assert len(name) < 120
    assert folder_name([*many[:-1], "other"]) != name


def test_the_recipes_of_a_glob_are_one_row_each(stubbed):
    folder, done = stubbed
    assert compare.main(["--recipe", "speedrun_*", "--repeats", "1", "--output_dir", str(folder)]) == 0
    found = Comparison.load(folder)
    assert [row.name for row in found.rows] == ["speedrun_cifar10_94", "speedrun_cifar10_96"]
    assert len(done()) == 2
