"""Rows of the data on a page: texts are quoted, escaped and cut."""

from hf_accel.report.gallery import MISTAKE_CHARACTERS, SAMPLE_CHARACTERS, shown
from hf_accel.report.page import write_page
from hf_accel.tasks.gallery import GalleryItem
from tests.support.reports import run_report


def test_markup_in_a_text_is_shown_and_does_not_act(tmp_path):
    report = run_report()
    report.task = "text-classification"
    item = GalleryItem("<script>alert(1)</script> a < b\nnext line", "<b>", "good & bad", 0.987, "row 3")
    page = write_page(tmp_path, report, [item], [item]).read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("<blockquote>&lt;script&gt;alert(1)&lt;/script&gt; a &lt; b\nnext line</blockquote>") == 2
    assert "true: <strong>&lt;b&gt;</strong><br>predicted: <strong>good &amp; bad</strong> (99 %)" in page
    assert '<span class="where">row 3</span>' in page
    assert '<ul class="gallery large texts">' in page


def test_a_long_text_is_cut_later_where_it_is_to_be_looked_at():
    item = GalleryItem("word " * 1000, "a")
    for is_large, most in ((True, MISTAKE_CHARACTERS), (False, SAMPLE_CHARACTERS)):
        html = shown(item, is_large)["html"]
        assert most - 5 <= len(html) - len("<blockquote></blockquote>") <= most + 2
        assert html.endswith("word …</blockquote>")
