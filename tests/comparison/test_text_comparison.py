"""A comparison of text recipes says texts and samples, in every table, on the page and in its plots."""

import json
import re
from dataclasses import replace

import pytest

from hf_accel import compare
from hf_accel.comparison.export import csv_table, latex, markdown, text_table, write_comparison
from hf_accel.comparison.page import write_comparison_page
from hf_accel.comparison.schema import Comparison
from hf_accel.comparison.table import build_comparison
from hf_accel.errors import UserError
from tests.support.reports import entries, model_outcome, outcome


@pytest.fixture
def variants():
    rows = entries("baseline", "bf16", "group_by_length", recipe="xlnet_amazon_polarity")
    runs = {row.name: [outcome(number, images_per_second=100.0 * speed) for number in (1, 2)]
            for speed, row in enumerate(rows, start=1)}  # fmt: skip
    return build_comparison(rows, runs, "baseline")


@pytest.fixture
def recipes():
    one, other = (entries("default", recipe=name)[0] for name in ("xlnet_amazon_polarity", "finetune_text"))
    rows = [one, replace(other, name="other")]
    return build_comparison(rows, {row.name: [model_outcome(1, 0.5)] for row in rows}, "default")


@pytest.mark.parametrize("kind", ["variants", "recipes"])
def test_no_table_of_texts_speaks_of_images(kind, request, tmp_path):
    comparison = request.getfixturevalue(kind)
    write_comparison(comparison, tmp_path, with_paper=False)
    page = write_comparison_page(tmp_path).read_text(encoding="utf-8")
    tables = [markdown(comparison), latex(comparison), text_table(comparison)]
    for text in (*tables, page.split("<body")[1]):
        assert "samples/s" in text.casefold()
        assert not re.search(r"(?<!data:)\bimages?\b(?!_|/svg)", text), re.search(r".{40}\bimages?\b.{20}", text)
    assert "images_per_second" in csv_table(comparison), "a name in a file stays"
    assert Comparison.load(tmp_path).task == "text-classification"
    assert "FLOPs per text" in page


def test_a_comparison_that_an_earlier_version_wrote_is_of_images(variants, tmp_path):
    write_comparison(variants, tmp_path, with_paper=False)
    file = tmp_path / "compare.json"
    values = json.loads(file.read_text())
    del values["task"]
    file.write_text(json.dumps(values))
    assert Comparison.load(tmp_path).words.rate == "images/s"


def test_recipes_of_images_and_of_texts_are_not_compared(stubbed):
    folder, _ = stubbed
    with pytest.raises(UserError, match="finetune_text is for text-classification, and their figures cannot"):
        compare.main(["--recipe", "digits", "finetune_text", "--output_dir", str(folder)])
