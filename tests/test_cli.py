import gc
import json
import subprocess
import sys

import pytest

import hf_accel
from hf_accel import terminal
from hf_accel.cli import (
    COMMANDS,
    command_parser,
    interrupt_says,
    main,
    parse_with_overrides,
    print_result,
    quick_imports,
    run,
)
from hf_accel.config.flags import overrides_from_flags
from hf_accel.errors import UserError


def test_the_public_names_are_pinned():
    assert hf_accel.__all__ == ["Prediction", "RunReport", "build_trainer", "load_recipe", "predict", "report_on"]
    for name in hf_accel.__all__:
        assert callable(getattr(hf_accel, name))
    with pytest.raises(AttributeError, match="nothing"):
        hf_accel.nothing  # noqa: B018


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_is_one_screen_and_imports_nothing_heavy(verb):
    code = (
        f"import sys; from hf_accel.cli import main\n"
        f"try: main([{verb!r}, '--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'timm'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert len(shown.splitlines()) <= 50
    assert max(map(len, shown.splitlines())) <= 130


def test_the_help_of_train_names_the_commands_that_list_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for command in ("recipe schema --format markdown", "recipe arguments", "recipe migrate"):
        assert f"hf-accel {command}" in shown


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["-b", "64"], {"b": "64"}),
        (["--amp", "-j", "4"], {"amp": "true", "j": "4"}),
        (["--learning-rate", "1e-3", "--data.image-column=x"], {"learning_rate": "1e-3", "data.image_column": "x"}),
        (["--eval_delay", "-1"], {"eval_delay": "-1"}),
    ],
)
def test_flags_are_read_with_dashes_and_in_the_short_form_of_other_tools(words, flags):
    assert parse_with_overrides(command_parser("x", "y"), words)[1] == flags


def test_a_flag_of_the_command_may_have_dashes_for_underscores():
    parser = command_parser("x", "y")
    parser.add_argument("--dry_run", action="store_true")
    parser.add_argument("--top_k", type=int)
    known, flags = parse_with_overrides(parser, ["--dry-run", "--top-k=3"])
    assert (known.dry_run, known.top_k, flags) == (True, 3, {})


def test_settings_in_the_form_of_ultralytics_are_answered_with_the_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = command_parser("x", "y")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--output_dir")
    words = ["data=./photos", "epochs=3", "imgsz=224"]
    with pytest.raises(
        UserError, match=r"^3 flags are not(?s:.*)Together: --data.name ./photos --num_train_epochs 3 --data.im"
    ):
        parse_with_overrides(parser, words, check=overrides_from_flags)
    with pytest.raises(UserError, match=r"unexpected 'learning_rate=1', expected --learning_rate 1"):
        parse_with_overrides(parser, ["learning_rate=1"], check=overrides_from_flags)
    (tmp_path / "a=b").mkdir()
    known, flags = parse_with_overrides(parser, ["a=b", "--output_dir", "lr=1"], check=overrides_from_flags)
    assert (known.data, known.output_dir, flags) == ("a=b", "lr=1", {})
    with pytest.raises(UserError, match=r"unexpected 'epochs=3', expected --epochs 3"):
        parse_with_overrides(command_parser("x", "y"), ["epochs=3"])


def test_the_list_of_verbs_and_a_near_miss(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb}" in shown for verb in COMMANDS)
    assert main(["trian"]) == 2
    assert "train" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["help"], ["--help"], ["version"], ["--version"], ["help", "push"]])
def test_the_package_runs_as_a_module_and_answers_the_words_that_people_try(words):
    done = subprocess.run([sys.executable, "-m", "hf_accel", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {"version": hf_accel.__version__, "push": "usage: hf-accel push"}.get(
        words[-1].strip("-"), "usage: hf-accel VERB"
    )
    assert expected in done.stdout


@pytest.mark.parametrize("words", [["help", "trian"], ["trian"], ["versoin"]])
def test_a_mistyped_verb_gets_the_near_ones(words, capsys):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "Did you mean" in shown.err
    assert shown.out == ""


def test_the_command_alone_lists_the_verbs_and_fails(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "usage: hf-accel VERB" in shown.err
    assert shown.out == ""


def test_a_mistake_of_the_parser_is_one_message(capsys):
    assert main(["recipe", "show"]) == 2
    assert capsys.readouterr().err == (
        "error: hf-accel recipe show: the following arguments are required: name. See hf-accel recipe show --help\n"
    )


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_quiet_and_json(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert "--quiet" in shown
    assert "--json" in shown


DOCUMENTS = {
    "list": (["list"], lambda found: {"name", "model", "data", "purpose", "measured"} == found[0].keys()),
    "show": (["show", "digits"], lambda found: found["data"]["name"] == "digits"),
    "show a variant": (["show", "digits", "--variant", "baseline"], lambda found: found["variant"] == "baseline"),
    "validate": (["validate", "digits"], lambda found: found["valid"] and "baseline" in found["variants"]),
    "copy": (["copy", "digits", "{folder}/my own.yaml"], lambda found: found["path"].endswith("my own.yaml")),
    "schema": (["schema"], lambda found: "properties" in found),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("case", DOCUMENTS)
def test_json_is_one_document_and_nothing_else(case, place, tmp_path, capsys):
    words, is_right = DOCUMENTS[case]
    words = [word.format(folder=tmp_path) for word in words]
    assert main(["recipe", *(["--json", *words] if place == "before" else [*words, "--json"])]) == 0
    assert is_right(json.loads(capsys.readouterr().out))


def test_json_and_another_format_exclude_each_other(capsys):
    assert main(["recipe", "schema", "--json", "--format", "markdown"]) == 2
    assert "Leave one out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shown"),
    [([], "all of it\nlast\n"), (["--quiet"], "last\n"), (["--json", "--quiet"], '{\n  "a": 1\n}\n')],
)
def test_a_result_is_text_its_last_line_or_a_document(words, shown, capsys):
    args = command_parser("x", "y").parse_args(words)
    assert terminal.is_quiet() == ("--quiet" in words)
    print_result(args, {"a": 1}, "all of it\nlast", "last")
    assert capsys.readouterr().out == shown


def test_quiet_leaves_warnings_and_errors(capsys):
    command_parser("x", "y").parse_args(["--quiet"])
    terminal.say("a message")
    terminal.warn("careful")
    assert capsys.readouterr().err == "warning: careful\n"
    command_parser("x", "y").parse_args([])
    terminal.say("a message")
    assert capsys.readouterr().err == "a message\n"


def test_an_interrupted_command_says_how_to_continue(capsys):
    def stopped(argv):
        with interrupt_says(lambda: "2 of 3 are kept. The same command continues."):
            raise KeyboardInterrupt

    assert run(stopped, []) == 130
    assert capsys.readouterr().err == "interrupted: 2 of 3 are kept. The same command continues.\n"


def test_flags_of_upstream_follow_or_stand_alone():
    parser = command_parser("x", "y")
    parser.add_argument("--recipe")
    known, flags = parse_with_overrides(
        parser, ["--recipe", "r", "--bf16", "--seed", "3", "--data.name=a b", "--x", "-1"]
    )
    assert known.recipe == "r"
    assert flags == {"bf16": "true", "seed": "3", "data.name": "a b", "x": "-1"}


def test_the_value_of_a_flag_is_not_taken_for_a_positional():
    parser = command_parser("x", "y")
    parser.add_argument("model")
    known, flags = parse_with_overrides(parser, ["--data.name", "./photos", "outputs/x"])
    assert (known.model, flags) == ("outputs/x", {"data.name": "./photos"})


@pytest.mark.parametrize("argv", [["stray"], ["--seed", "1", "2"], ["--seed", "1", "--seed", "2"], ["--"]])
def test_stray_words_and_repeated_flags_are_refused(argv):
    with pytest.raises(UserError):
        parse_with_overrides(command_parser("x", "y"), argv)


def test_a_users_mistake_is_one_message_and_exit_code_2(capsys):
    def fail(argv):
        raise UserError("where: got, expected")

    assert run(fail, []) == 2
    assert capsys.readouterr().err == "error: where: got, expected\n"


def test_a_name_in_a_message_does_not_act_on_the_terminal(capsys):
    def fail(argv):
        raise UserError("class 'cat\x1b[2J\ud800': first\n  second")

    assert run(fail, []) == 2
    assert capsys.readouterr().err == "error: class 'cat\\x1b[2J\\ud800': first\n  second\n"


def test_a_full_disk_is_the_users_message(capsys):
    def fail(argv):
        raise OSError(28, "No space left on device", "outputs/x")

    assert run(fail, []) == 1
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "Traceback" not in error


def test_other_failures_keep_their_traceback():
    def fail(argv):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        run(fail, [])


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m hf_accel.cli recipe show vit_cifar10 --variant all | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


ENDING = """
import atexit, sys, threading, time
from hf_accel.cli import run_and_exit
from hf_accel.errors import UserError

class Torn:
    def __del__(self):
        print("taken apart")

torn = Torn()
torn.cycle = torn

def main(argv):
    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("main")
    {ending}

run_and_exit(main)
"""


@pytest.mark.parametrize(
    ("code", "ending"), [(0, "return 0"), (2, "raise UserError('wrong')"), (130, "raise KeyboardInterrupt")]
)
def test_a_command_ends_its_process_at_once_and_loses_nothing(code, ending):
    done = subprocess.run([sys.executable, "-c", ENDING.format(ending=ending)], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.split() == ["main", "thread", "exit", "handler"]  # through a pipe: stdout was flushed


def test_a_failure_ends_the_process_as_python_does():
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(ending="raise RuntimeError('a bug')")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr
    assert "taken apart" in done.stdout


def test_collection_continues_after_the_imports():
    assert gc.isenabled()
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
