"""A fact that code needs is a field of the report; notes are for people, and no code reads one."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

import hf_accel
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.table import build_comparison
from hf_accel.hub.card import card_metadata, model_config
from hf_accel.hub.card_text import card_body
from hf_accel.hub.provenance import base_model, data_set
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.page import run_tiles, write_page
from hf_accel.report.run_report import RunReport
from tests.support.hub_contents import write_run
from tests.support.reports import entries, outcome, run_report

# The sentences that code once looked for, and one that it did not.
SENTENCES = [
    "no test split: the validation split is the test",
    "no test split: 20% of train is the test, stratified, the same for every seed",
    "test-time augmentation: flip, so the validation and test figures are of the mean of the logits",
    "torch_compile: warning: the network cannot be compiled here",
    "anything at all",
]


def with_notes(report: RunReport) -> RunReport:
    return replace(report, notes=list(SENTENCES))


def test_no_note_changes_the_metadata_or_the_sentences_of_the_card(tmp_path):
    run = FinishedRun.read(write_run(tmp_path / "run"))
    config, base, data = model_config(run.folder), base_model(run.recipe), data_set(run.recipe)

    def card(report: RunReport) -> tuple[str, str]:
        metadata = card_metadata(report, run.recipe, config, base, data, examples=[])
        body = card_body(replace(report, notes=[]), run.recipe, base, data, needs_package=False, plots=[])
        return metadata.to_yaml(), body

    assert card(with_notes(run.report)) == card(run.report)


@pytest.mark.slow
def test_no_note_changes_the_table_the_tiles_or_the_page(tmp_path):
    plain, noted = replace(run_report(), notes=["a note"]), with_notes(run_report())
    assert noted.table() == plain.table()
    assert run_tiles(noted) == run_tiles(plain)
    pages = []
    for name, report in (("plain", plain), ("noted", noted)):
        (tmp_path / name).mkdir()
        pages.append(write_page(tmp_path / name, report).read_text(encoding="utf-8"))
    listed = "".join(f"<li>{note}</li>" for note in SENTENCES)
    assert pages[1].replace(listed, "<li>a note</li>") == pages[0]


def test_no_note_changes_a_comparison():
    def compared(change) -> Comparison:
        runs = {name: [replace(run, report=change(run.report)) for run in map(outcome, range(3))]
                for name in ("baseline", "all")}  # fmt: skip
        return build_comparison(entries("baseline", "all"), runs, "baseline")

    assert compared(with_notes) == compared(lambda report: report)


def test_several_views_are_said_next_to_the_scores():
    report = run_report()
    report.test = replace(report.test, views=6, test_time_augmentation="flip_shift")
    assert report.score_notes == [
        "Test-time augmentation: flip_shift, so the validation and test figures are of the mean of the logits over 6 "
        "views of each image; the saved model alone looks at one."
    ]
    assert "with test-time augmentation" in run_tiles(report)[0][2]
    report.test = replace(report.test, views=1, test_time_augmentation="none")
    assert report.score_notes == []


def test_a_report_of_an_earlier_version_loads_and_what_it_does_not_know_is_none(tmp_path):
    path = run_report().save(tmp_path)
    values = json.loads(path.read_text())
    for section, names in {"data": ["test_split"], "train": ["compiled", "compile_failure"],
                           "test": ["views", "test_time_augmentation"]}.items():  # fmt: skip
        for name in names:
            del values[section][name]
    path.write_text(json.dumps(values))
    report = RunReport.load(tmp_path)
    assert (report.data.test_split, report.train.compiled, report.train.compile_failure) == (None, None, None)
    assert (report.test.views, report.test.test_time_augmentation, report.score_notes) == (None, None, [])


# No code reads a note: whether it does is seen in its syntax.

NOTES = ("note", "notes", "score_notes")
ADDING = ("append", "extend", "copy")
SEARCHING = ("any", "all", "next", "filter", "len", "min", "max")


def is_note(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id in NOTES) or (isinstance(node, ast.Attribute) and node.attr in NOTES)


def reads_of_notes(source: str) -> list[str]:
    """Expressions that look into a note or choose among notes; showing, adding and copying them do not count."""
    found = []
    for node in ast.walk(ast.parse(source)):
        looked_into = (
            (isinstance(node, ast.Compare) and any(is_note(part) for part in (node.left, *node.comparators)))
            or (isinstance(node, ast.Attribute) and is_note(node.value) and node.attr not in ADDING)
            or (isinstance(node, ast.Subscript) and is_note(node.value))
            or (isinstance(node, ast.comprehension) and is_note(node.iter) and node.ifs)
            or (
                isinstance(node, ast.Call)
                and any(is_note(argument) for argument in node.args)
                and ast.unparse(node.func).split(".")[0] in (*SEARCHING, "re")
            )
        )
        if looked_into:
            found.append(ast.unparse(node) if not isinstance(node, ast.comprehension) else ast.unparse(node.ifs[0]))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "x = [note for note in report.notes if note.startswith('a')]",
        "x = any('of train' in note for note in notes)",
        "x = 'a' in report.notes",
        "x = next(iter(notes))[0] if re.match('a', note) else notes[0]",
        "x = len(report.score_notes)",
    ],
)
def test_a_read_of_a_note_is_found(source):
    assert reads_of_notes(source)


def test_no_code_reads_a_note():
    package = Path(hf_accel.__file__).parent
    found = {path.relative_to(package).as_posix(): reads_of_notes(path.read_text("utf-8"))
             for path in package.rglob("*.py")}  # fmt: skip
    assert {name: reads for name, reads in found.items() if reads} == {}
