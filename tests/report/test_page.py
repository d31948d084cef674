"""The pages in a real browser: nothing is fetched, everything is painted, and they fit a phone and a keyboard."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_accel.comparison.export import write_comparison
from hf_accel.comparison.page import write_comparison_page
from hf_accel.comparison.schema import RunOutcome
from hf_accel.comparison.table import build_comparison
from hf_accel.report.page import data_uri, run_tiles, write_page
from hf_accel.report.plots import run_plots
from tests.support.reports import entries, outcome, pictures, run_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAGES = ("run", "many_classes", "bare_run", "comparison")
INTERACTIVE = "a[href], summary, [tabindex='0']"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of every kind; many_classes is the largest that a run could make."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "run").mkdir()
    (folder / "run" / "recipe.yaml").write_text("model: {name: <timm/resnet18>}\n", encoding="utf-8")
    for name in PAGES[1:]:
        (folder / name).mkdir()
    runs = {
        "baseline": [outcome(r, images_per_second=100 + r, test_accuracy=0.90 + 0.001 * r) for r in range(3)],
        "all": [outcome(r, images_per_second=150 + r, seconds=17.0, test_accuracy=0.90) for r in range(3)],
        "fp16": [RunOutcome(0, 42, 1000.0, 1.0, None, "training.fp16 needs a CUDA device")],
        "as_published": [outcome(r, images_per_second=90 + 2 * r, seconds=40.0) for r in range(3)],
    }
    comparison = build_comparison(entries(*runs), runs, "baseline")
    write_comparison(comparison, folder / "comparison", with_paper=True)
    bare = run_report()
    bare.test = bare.validation = None
    bare.history = []
    return {
        "run": write_page(folder / "run", run_report(), pictures(24, 32, True), pictures(24, 32, False)),
        "many_classes": write_page(
            folder / "many_classes", run_report(1000, 5000), pictures(60, 500, True), pictures(60, 500, False)
        ),
        "bare_run": write_page(folder / "bare_run", bare),
        "comparison": write_comparison_page(folder / "comparison"),
    }


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        # A continuous integration that lacks the browser must not look as if the pages had been tested.
        assert not os.environ.get("CI"), "CI needs a Chromium: apt-get install chromium"
        pytest.skip("needs a Chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        # Playwright gives each launch a profile folder of its own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, pages):
    """`open_page("run", width=390)` -> the page, with its messages in `.said` and its requests in `.asked`."""
    opened = []

    def open_(name: str, width: int = 1200, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.append(page)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(pages[name].as_uri())
        if os.environ.get("HF_ACCEL_SCREENSHOTS"):
            place = Path(os.environ["HF_ACCEL_SCREENSHOTS"]) / f"page_{name}_{width}_{scheme}.png"
            page.screenshot(path=place, full_page=True)
        return page

    yield open_
    for page in opened:
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_nothing_to_the_console_and_asks_no_one(open_page, pages, name):
    page = open_page(name)
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.locator("script").count() == 0


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 320, 768, 1200])
def test_a_page_never_scrolls_sideways(open_page, name, width):
    page = open_page(name, width)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", PAGES)
def test_every_image_and_plot_is_painted(open_page, name, tmp_path):
    page = open_page(name)
    images = page.locator("img")
    assert images.count() == {"run": 48, "many_classes": 96}.get(name, 0)
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    plots = page.locator("svg.plot")
    assert plots.count() == {"run": 6, "many_classes": 6, "bare_run": 1, "comparison": 3}[name]
    for element in [*plots.all(), *images.all()[:3]]:
        shot = tmp_path / "element.png"
        element.screenshot(path=shot)
        assert len(Image.open(shot).convert("RGB").getcolors(10**6)) > 20


@pytest.mark.parametrize("name", PAGES)
def test_every_image_and_plot_has_an_alternative_text(open_page, name):
    page = open_page(name)
    texts = [image.get_attribute("alt") for image in page.locator("img").all()]
    texts += [plot.get_attribute("aria-label") for plot in page.locator("svg.plot").all()]
    assert all(text and len(text) > 15 for text in texts)


@pytest.mark.parametrize("name", PAGES)
def test_the_tab_key_reaches_everything_and_enter_unfolds(open_page, name):
    page = open_page(name)
    expected = page.locator(INTERACTIVE).evaluate_all(
        "all => all.filter(element => element.checkVisibility()).map((element, i) => (element.dataset.tab = i))"
    )
    reached = set()
    for _ in range(len(expected) + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.tab"))
    assert {str(number) for number in expected} <= reached
    for summary in page.locator("summary").all():
        summary.focus()
        page.keyboard.press("Enter")
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_in_the_dark_page_and_plots_are_dark(open_page, name):
    page = open_page(name, scheme="dark")

    def brightness(selector: str, what: str) -> float:
        colour = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{what}")
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    assert brightness("body", "backgroundColor") < 40 < 200 < brightness("body", "color")
    assert brightness("svg.plot text", "fill") > 140
    white = page.locator("svg.plot [style*='fill: #ffffff']")
    assert all(part.evaluate("element => element.tagName") == "text" for part in white.all())


def test_on_paper_folded_text_is_printed_and_the_colours_are_those_of_paper(open_page, tmp_path):
    page = open_page("run", scheme="dark")
    recipe = page.locator("details pre").first
    assert not recipe.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert recipe.is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 41)"
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_smaller_than_three_megabytes(pages, name):
    assert pages[name].stat().st_size < 3_000_000


def test_text_from_outside_is_escaped(pages):
    assert "&lt;timm/resnet18&gt;" in pages["run"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_plots_are_also_files_on_white_with_letters_as_paths(pages, name):
    files = sorted((pages[name].parent / "plots").glob("*.svg"))
    assert len(files) >= 3
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "<text" not in text
        assert "fill: #ffffff" in text
        assert "var(" not in text


@pytest.mark.slow
def test_the_same_report_gives_the_same_page(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, run_report(), pictures(2, 8, True))
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


def test_tiles_leave_out_missing_figures_and_prefer_the_memory_of_the_device():
    names = [(name, remark) for name, _, remark in run_tiles(run_report(energy_joules=None))]
    assert "Energy" not in dict(names)
    assert ("Peak memory", "of the process, anonymous") in names
    on_device = [(name, remark) for name, _, remark in run_tiles(run_report(peak_memory_gib=3.0))]
    assert [remark for name, remark in on_device if name == "Peak memory"] == ["of the device"]


def test_a_plot_tells_its_figures_in_words():
    plots = run_plots(run_report(3, 60))
    assert plots["loss"].alt == "Loss over 5 epochs: train from 2 to 0.08, validation from 0.44 to 0.088."
    assert plots["step_time"].alt.endswith(
        "waiting for data 2.0 %, image transforms 8.0 %, model and optimizer 90.0 %."
    )
    assert plots["confusion"].alt.startswith("Confusion matrix of 3 classes: 60 images, ")


def test_small_images_are_kept_exactly_and_photographs_are_reduced():
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert data_uri(small).startswith("data:image/png;base64,")
    photograph = data_uri(np.zeros((1200, 900, 3), dtype=np.uint8))
    assert photograph.startswith("data:image/jpeg;base64,")
    assert len(photograph) < 20_000
