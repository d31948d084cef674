"""What the environment of a launcher means for messages; two real processes are in tests/training/test_launched_runs.py."""

import json

import pytest

from hf_accel import cli, ranks
from hf_accel.errors import RunError, UserError

ELASTIC = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for the launcher."""
    found = []
    monkeypatch.setattr(ranks.time, "sleep", found.append)
    return found


def fails(error):
    def main(argv):
        raise error

    return main


LOST = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:60588")


@pytest.mark.parametrize(
    ("environment", "error", "is_left_to_another"),
    [
        ({}, UserError("no such data"), False),
        (ELASTIC | {"RANK": "0", "LOCAL_RANK": "0"}, UserError("no such data"), False),
        (ELASTIC | {"RANK": "1", "LOCAL_RANK": "1"}, UserError("no such data"), True),
        (ELASTIC | {"RANK": "1", "LOCAL_RANK": "1"}, RunError("the loss is inf"), True),
        (ELASTIC | {"RANK": "1", "LOCAL_RANK": "0"}, UserError("no such data"), False),  # of another machine
        (ELASTIC | {"RANK": "0", "LOCAL_RANK": "0"}, LOST, True),
        (ELASTIC | {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "1"}, LOST, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, LOST, False),  # nobody would end it
    ],
)
def test_what_another_process_says_is_said_only_by_one_that_outlives_it(
    environment, error, is_left_to_another, waits, monkeypatch, capsys
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(fails(error)) == (2 if isinstance(error, UserError) else 1)
    assert waits == ([ranks.PATIENCE_SECONDS] if is_left_to_another else [])
    assert capsys.readouterr().err.count("error") == 1  # nobody ended it


def test_a_traceback_waits_for_the_first_process_too(waits, monkeypatch):
    for name, value in (ELASTIC | {"LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZeroDivisionError):
        cli.run(fails(ZeroDivisionError()))
    assert len(waits) == 1


def test_the_launcher_gets_the_message(tmp_path, monkeypatch, capsys):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    cli.run(fails(UserError("no such data")))
    assert "no such data" in capsys.readouterr().err
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    assert failure.message["extraInfo"]["py_callstack"] == "no such data"
    assert failure.timestamp > 0
    assert json.loads(file.read_text())["message"]["message"] == "no such data"
