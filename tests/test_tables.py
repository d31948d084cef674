"""Tables as text: laid out alike everywhere, and no name acts in a terminal, a page or a spreadsheet."""

import csv
import io
import subprocess
import sys

import pytest

from hf_accel.tables import csv_cell, format_table, markdown_text, printable, write_csv

ROWS = [["cat", "0.9"], ["a horse", "10.75"]]


def test_a_plain_table_aligns_its_figures_right_and_has_no_spaces_at_the_end_of_lines():
    assert format_table(["class", "F1"], ROWS) == "class       F1\ncat        0.9\na horse  10.75"
    assert format_table([], [["a", ""], ["bcd", "e"]], align="ll", indent=2) == "  a\n  bcd  e"
    assert format_table([], []) == ""


def test_columns_have_at_least_the_width_that_is_asked_for():
    assert format_table(["", "F1"], [["a", 1]], min_widths=(4, 6)) == "          F1\na          1"


def test_a_figure_is_shown_as_it_was_written():
    assert format_table(["", "x"], [["1e3", "1,234"], ["0010", "1.50"]]) == "          x\n1e3   1,234\n0010   1.50"


def test_a_markdown_table_aligns_its_figures_right_and_escapes_markup():
    lines = format_table(["class", "F1"], [["a|b", "0.9"], ["*_c_*", "-"]], "markdown").splitlines()
    assert [line.replace(" ", "") for line in lines] == [
        "|class|F1|",
        "|:----------|-----:|",
        "|a\\|b|0.9|",
        "|\\*\\_c\\_\\*|-|",
    ]
    assert format_table(["", ""], [["a", "b"]], "markdown", "ll").splitlines()[1].count(":-") == 2


def test_a_latex_table_uses_booktabs_and_escapes_special_characters():
    text = format_table(["recipe", "accuracy"], [["ga_same_batch", "95.00 ± 0.10 %"]], "latex")
    for part in (r"\begin{tabular}{lr}", r"\toprule", r"ga\_same\_batch", r"95.00 $\pm$ 0.10 \%", r"\bottomrule"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("\u2028", r"\u2028"),
        ("häßlich, 猫, 👩‍🚀", "häßlich, 猫, 👩‍🚀"),
        (r"back\slash", r"back\slash"),
    ],
)
@pytest.mark.parametrize("style", ["itself", "plain", "latex", "csv"])
def test_a_character_that_a_terminal_would_obey_is_a_visible_escape(text, shown, style):
    if style == "itself":
        assert printable(text) == shown
    elif style == "csv":
        assert csv_cell(text) == shown
    else:
        unsafe = set(text) - set(shown)
        assert not unsafe & set(format_table(["name"], [[text]], style).replace("\n", ""))
        assert len(format_table(["name"], [[text]]).splitlines()) == 2


def test_markdown_text_is_one_line_and_keeps_names_readable():
    assert markdown_text("a\n b\x1b") == r"a b\\x1b"
    assert markdown_text("ga_same_batch") == "ga_same_batch"
    assert markdown_text("_a_ <b> [c](d)") == r"\_a\_ \<b\> \[c\](d)"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_run_is_quoted(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0").startswith("'")


def test_figures_and_other_text_stay_as_they_are_in_csv():
    file = io.StringIO()
    write_csv(file, ["name", "x", "y"], [["=SUM(A1)", -0.5, None], ['a, "b"', -3, True]])
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [
        ["name", "x", "y"],
        ["'=SUM(A1)", "-0.5", ""],
        ['a, "b"', "-3", "True"],
    ]


def test_importing_the_module_does_not_import_tabulate():
    code = "import sys, hf_accel.tables; sys.exit('tabulate' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
