"""The pages in a real browser: nothing is fetched, everything is painted, and they fit a phone and a keyboard."""

import json
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
from hf_accel.report.gallery import data_uri
from hf_accel.report.page import run_tiles, write_page
from hf_accel.report.plots import GREEN, VERMILION, run_plots
from hf_accel.report.run_report import QuantizationSummary
from hf_accel.tuning.learning_rate_page import write_learning_rate_page
from hf_accel.tuning.page import write_tuning_page
from tests.support.reports import entries, outcome, pictures, pruned_report, run_report
from tests.support.tunings import learning_rate, tuning

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAGES = ("run", "hundred_classes", "many_classes", "bare_run", "pruned", "comparison", "tuning", "learning_rate")
INTERACTIVE = "a[href], summary, [tabindex='0']"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of every kind; many_classes is the largest that a run could make."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "run").mkdir()
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
    (folder / "tuning" / "tune.json").write_text(json.dumps(tuning().to_dict()), encoding="utf-8")
    bare = run_report()
    bare.test = bare.validation = None
    bare.history = []
    return {
        "run": write_page(
            folder / "run",
            run_report(),
            pictures(24, 32, True),
            pictures(24, 32, False),
            recipe_text="model: {name: <timm/resnet18>}\n",
        ),
        "hundred_classes": write_page(
            folder / "hundred_classes", run_report(100, 2000), pictures(24, 300, True), pictures(24, 300, False)
        ),
        "many_classes": write_page(
            folder / "many_classes", run_report(1000, 5000), pictures(60, 500, True), pictures(60, 500, False)
        ),
        "bare_run": write_page(folder / "bare_run", bare),
        "pruned": write_page(folder / "pruned", pruned_report(layers=100)),
        "comparison": write_comparison_page(folder / "comparison"),
        "tuning": write_tuning_page(folder / "tuning"),
        "learning_rate": write_learning_rate_page(learning_rate(), folder / "learning_rate"),
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
    assert images.count() == {"run": 48, "hundred_classes": 48, "many_classes": 48}.get(name, 0)
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    plots = page.locator("svg.plot")
    assert plots.count() == {"pruned": 8, "comparison": 3, "bare_run": 1, "tuning": 1, "learning_rate": 1}.get(name, 6)
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


def test_on_paper_the_colours_are_those_of_paper_and_only_what_was_unfolded_is_printed(open_page):
    page = open_page("run", scheme="dark")
    recipe = page.locator("details pre").first
    page.emulate_media(media="print", color_scheme="dark")
    assert not recipe.is_visible()
    assert not page.locator("summary").first.is_visible()
    page.emulate_media(media="screen")
    for summary in page.locator("summary").all():
        summary.click()
    page.emulate_media(media="print", color_scheme="dark")
    assert recipe.is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 41)"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "comparison"])
def test_the_page_of_a_run_is_printed_on_at_most_four_sheets(open_page, name):
    printed = open_page(name).pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4


@pytest.mark.parametrize("width", [390, 1200])
def test_mistakes_are_large_enough_to_look_at_and_say_what_was_true_and_what_was_predicted(open_page, width):
    page = open_page("hundred_classes", width)
    mistake = page.locator("#mistakes ~ ul li").first
    assert mistake.locator("img").bounding_box()["width"] >= 160
    assert mistake.inner_text().splitlines() == ["true: class number 1", "predicted: class number 2 (99 %)", "row 0"]


def test_a_matrix_of_a_hundred_classes_names_them_and_is_scrolled_with_the_keyboard(open_page):
    page = open_page("hundred_classes")
    matrix = page.locator(".matrix")
    names = matrix.locator("svg text").all_text_contents()
    assert {"class number 0", "class number 99"} <= set(names)
    box = matrix.locator("svg text", has_text="class number 50").first.bounding_box()
    assert min(box["width"], box["height"]) >= 9  # CSS pixels
    matrix.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.matrix').scrollLeft > 0")
    # above two hundred classes, names would need a picture of several metres
    assert open_page("many_classes").locator(".matrix").count() == 0


def test_a_wide_table_shows_that_it_goes_on(open_page):
    page = open_page("comparison", 768)
    table = page.locator("[aria-label='All figures']")
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    assert "gradient" in table.evaluate("box => getComputedStyle(box).backgroundImage")


def test_links_lead_to_sections_and_to_files_of_the_run(tmp_path):
    for name in ("predictions.csv", "recipe.yaml", "model/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    text = write_page(tmp_path, run_report()).read_text(encoding="utf-8")
    links = re.findall(r'<a [^>]*href="([^"]+)"', text)
    files = [link for link in links if not link.startswith("#")]
    assert files == ["predictions.csv", "recipe.yaml", "model/README.md", "plots"]
    assert all((tmp_path / name).exists() for name in files)
    assert all(f'id="{link[1:]}"' in text for link in links if link.startswith("#"))


def test_the_title_is_model_and_data_and_the_commands_are_those_of_this_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "my run").mkdir(parents=True)
    text = write_page(tmp_path / "outputs" / "my run", run_report()).read_text(encoding="utf-8")
    assert "<h1>ResNet18 on pictures, 10 classes</h1>" in text
    assert "<title>ResNet18 on pictures, 10 classes: report of a run</title>" in text
    assert "hf-accel predict &#39;outputs/my run&#39; photo.jpg" in text


def test_a_run_elsewhere_is_named_by_a_dot_and_not_by_its_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "jane").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = write_page(tmp_path / "jane", run_report()).read_text(encoding="utf-8")
    assert "In the folder of this page:" in text
    assert '<pre tabindex="0">hf-accel demo .</pre>' in text
    assert "jane" not in text


def test_a_page_without_a_validation_curve_says_why(tmp_path):
    report = run_report()
    assert "no validation curve" not in write_page(tmp_path, report).read_text(encoding="utf-8")
    report.validation = None
    assert "validation images were never scored" in write_page(tmp_path, report).read_text(encoding="utf-8")
    report.data.validation_rows = None
    assert "<code>data.validation</code> is 0" in write_page(tmp_path, report).read_text(encoding="utf-8")


def test_green_and_red_mean_better_and_worse_so_no_plot_of_a_run_has_them(pages):
    for plot in (pages["run"].parent / "plots").glob("*.svg"):
        assert not re.search(f"{GREEN}|{VERMILION}", plot.read_text(encoding="utf-8")), plot.name
    assert not re.search('class="(good|bad)"', pages["run"].read_text(encoding="utf-8"))


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


def test_the_same_report_gives_the_same_page(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, run_report(), pictures(2, 8, True))
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


def test_tiles_leave_out_missing_figures():
    assert "Energy" not in [name for name, _, _ in run_tiles(run_report(energy_joules=None))]


def test_the_accuracy_as_int8_is_a_tile_where_it_was_measured():
    report = run_report()
    assert "Accuracy as int8" not in [name for name, *_ in run_tiles(report)]
    report.quantization = QuantizationSummary(test_accuracy=0.9123)
    assert ("Accuracy as int8", "91.23 %", "simulated, on the test") in run_tiles(report)


@pytest.mark.parametrize(("peak", "shown"), [(None, "1.50 GiB"), (3.0, "3.00 GiB")])
def test_the_page_and_the_terminal_show_the_same_peak_of_memory(tmp_path, peak, shown):
    report = run_report(peak_memory_gib=peak)
    assert [figure for name, figure, _ in run_tiles(report) if name == "Peak memory"] == [shown]
    assert re.search(rf"^  peak memory +{shown}  on the (device|host)", report.table(), re.MULTILINE)
    text = write_page(tmp_path, report).read_text(encoding="utf-8")
    assert set(re.findall(r"([\d.]+) GiB", text)) == {"1.50", shown[:4]}


def test_a_plot_tells_its_figures_in_words():
    plots = run_plots(run_report(3, 60))
    assert plots["loss"].alt == "Loss over 5 epochs: train from 2 to 0.08, validation from 0.44 to 0.088."
    assert plots["step_time"].alt.endswith(
        "waiting for data 2.0 %, image transforms 8.0 %, model and optimizer 90.0 %."
    )
    assert plots["confusion"].alt.startswith("Confusion matrix of 3 classes: 60 test rows, ")
    plots = run_plots(pruned_report(layers=3))
    assert plots["sparsity_by_layer"].alt == (
        "Share of zeros in 3 layers, from the input to the output. Lowest: timm_model.blocks.0.mlp.fc1 25.0 %. Highest: "
        "timm_model.blocks.2.mlp.fc1 75.0 %."
    )
    assert plots["sparsity_by_step"].alt == "Share of zeros from 10.0 % to 50.0 % in 2 steps."


def test_small_images_are_kept_exactly_and_photographs_are_reduced():
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert data_uri(small, 176).startswith("data:image/png;base64,")
    photograph = data_uri(np.zeros((1200, 900, 3), dtype=np.uint8), 176)
    assert photograph.startswith("data:image/jpeg;base64,")
    assert len(photograph) < 20_000
