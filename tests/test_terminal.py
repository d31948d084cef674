"""What a terminal is shown, and a file or a pipe is not."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hf_accel import terminal
from hf_accel.cli import command_parser


class Screen(io.StringIO):
    """A terminal to write to."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    command_parser("x", "y").parse_args([])  # not quiet
    shown = Screen()
    # not sys.stderr itself, which pytest sets again between a fixture and its test
    monkeypatch.setattr(terminal, "sys", SimpleNamespace(stderr=shown, modules=sys.modules))
    return shown


@pytest.mark.parametrize(
    ("variables", "is_terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),  # as https://no-color.org says
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(variables, is_terminal, coloured, screen, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = screen if is_terminal else io.StringIO()
    assert (terminal.paint("x", "red", stream) == "x") != coloured


def test_text_wraps_to_the_terminal_and_what_is_to_be_copied_does_not(screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "a sentence that is longer than a line of this terminal\n  hf-accel predict outputs/a/long/folder photo.jpg"
    first, second, command = terminal.wrap(text, screen).splitlines()
    assert max(len(first), len(second)) <= 40
    assert command == text.splitlines()[1]
    assert terminal.wrap(text, io.StringIO()) == text
    quoted = "the page was not written: `hf-accel page outputs/my/run` makes it later"
    assert "`hf-accel page outputs/my/run`" in terminal.wrap(quoted, screen)
    marked = terminal.marked("error:", "red", quoted, screen)
    assert max(len(line.replace("\x1b[1;31m", "").replace("\x1b[0m", "")) for line in marked.splitlines()) <= 40


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_bar_fits_its_terminal(columns, screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (columns, 24))
    with terminal.bar(12_000, "train", "step", delay=0, mininterval=0) as bar:
        bar.set_postfix_str("loss 0.6931", refresh=False)
        bar.update(4_000)
        bar.refresh()
    for state in screen.getvalue().replace("\n", "").split("\r"):
        assert len(state) <= columns
    assert "loss 0.6931" in screen.getvalue() or columns == 40
    assert "4000/12000" in screen.getvalue()


@pytest.mark.parametrize("reason", ["a pipe", "TERM=dumb", "--quiet", "another rank"])
def test_a_bar_is_left_out_where_it_would_be_noise(reason, screen, monkeypatch):
    if reason == "a pipe":
        monkeypatch.setattr(screen, "isatty", lambda: False, raising=False)
    elif reason == "TERM=dumb":
        monkeypatch.setenv("TERM", "dumb")
    elif reason == "another rank":
        monkeypatch.setenv("RANK", "1")
    else:
        command_parser("x", "y").parse_args(["--quiet"])
    with terminal.bar(10, "train", "step", delay=0) as bar:
        bar.update(10)
    assert screen.getvalue() == ""


def test_short_work_shows_no_bar(screen):
    with terminal.bar(10, "hashing", "file", delay=60) as bar:
        bar.update(10)
    assert screen.getvalue().strip() == ""


WRONG = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "TERM=dumb": {"TERM": "dumb"},
    "no TERM": {"TERM": ""},
    "40 columns": {"COLUMNS": "40"},
    "1 column": {"COLUMNS": "1"},
    "nonsense": {"COLUMNS": "wide", "LINES": "-1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("words", [["help"], ["train", "--help"], ["recipe", "show", "{recipe}"], ["trän"]])
def test_a_wrong_terminal_is_served_all_the_same(case, words, tmp_path):
    recipe = tmp_path / "größe.yaml"
    recipe.write_text("# images … of 5 × 5\nextends: digits\n", encoding="utf-8")
    words = [word.format(recipe=recipe) for word in words]
    environment = {**os.environ, **WRONG[case]}
    done = subprocess.run([sys.executable, "-m", "hf_accel", *words], capture_output=True, env=environment)
    assert done.returncode == (2 if words[0] == "trän" else 0), done.stderr
    assert b"Traceback" not in done.stderr
