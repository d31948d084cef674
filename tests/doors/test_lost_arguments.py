"""Every command that takes a recipe and settings says when a network loses the recipe's arguments by its name."""

import pytest

from hf_accel import compare, doctor, profile, train, tune
from hf_accel.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("command", [train, compare, tune, profile, doctor])
def test_a_network_that_loses_the_recipes_arguments_is_warned_of_once(command, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "model: {name: timm/test_resnet, pretrained: false, args: {output_stride: 16}}\ndata: {name: ./nowhere}\n"
        "variants: {baseline: {}}\n"
    )
    words = ["--recipe", str(recipe), "--model.name", "timm/test_vit"]
    if command is doctor:
        monkeypatch.setattr(doctor, "examine", lambda args, recipe: 0)
        doctor.main(words)
    else:  # a folder of somebody else's ends the command before it measures
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "letter.txt").touch()
        with pytest.raises(UserError, match="out"):
            command.main([*words, "--output_dir", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("are those of timm/test_resnet: timm/test_vit is built without them") == 1
