"""Every place that loads a model says that it opens no pickle and runs no code."""

import ast
from pathlib import Path

import pytest

import hf_accel

FILES = sorted(Path(hf_accel.__file__).parent.rglob("*.py"))


def loading_calls(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "from_pretrained"]


@pytest.mark.parametrize("path", [path for path in FILES if loading_calls(path)], ids=lambda path: path.name)
def test_nothing_is_loaded_without_saying_so(path):
    for call in loading_calls(path):
        stated = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        loads_weights = ast.unparse(call.func.value) not in ("AutoConfig", "AutoImageProcessor", "AutoTokenizer")
        known_class = ast.unparse(call.func.value).startswith("type(")  # its code is loaded already
        assert known_class or stated.get("trust_remote_code") == "False", ast.unparse(call)
        assert not loads_weights or stated.get("use_safetensors") == "True", ast.unparse(call)


def test_the_check_finds_the_places():
    assert len([path for path in FILES if loading_calls(path)]) >= 5
