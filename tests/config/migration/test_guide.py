"""docs/migrate.md is made from the table that answers unknown flags."""

import re
from pathlib import Path

import pytest

from hf_accel.config.migration.answers import TOOLS
from hf_accel.config.migration.guide import migration_guide
from hf_accel.recipe import main

from .test_answers import taken

ROOT = Path(__file__).parents[3]
COMMANDS = re.findall(r"^hf-accel train (.*?[^\\])$", migration_guide(), re.MULTILINE | re.DOTALL)


def test_the_document_is_the_one_that_the_table_gives(capsys):
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "migrate.md").read_text("utf-8"), (
        "run: hf-accel recipe migrate > docs/migrate.md"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_worked_example_is_accepted(command):
    taken(command.replace("\\\n", " "))


def test_every_tool_has_a_worked_example_and_every_name_is_in_its_table():
    assert len(COMMANDS) == len(TOOLS) - 1
    text = migration_guide()
    for tool, rows in TOOLS.items():
        heading = "Other scripts" if tool == "other scripts" else tool.removeprefix("the ")
        part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        for name in (name for row in rows for name in row.names):
            assert re.search(rf"\W{re.escape(name)}\W", part), f"{tool}: {name}"
