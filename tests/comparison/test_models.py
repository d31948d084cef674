"""Several recipes in one table: Pareto fronts, accuracy by class, confusions, and the files that show them."""

import csv
import io
import json
from dataclasses import replace

import pytest

from hf_accel.comparison.export import csv_table, latex, markdown, text_table, write_comparison
from hf_accel.comparison.fronts import pareto_front
from hf_accel.comparison.model_plots import MOST_LABELLED
from hf_accel.comparison.model_text import MOST_CLASSES, class_cells, model_cells, shown_classes
from hf_accel.comparison.page import page_title, write_comparison_page
from hf_accel.comparison.plots import comparison_plots, plot_legends
from hf_accel.comparison.schema import Classes, Comparison, Entry
from hf_accel.comparison.table import build_comparison
from hf_accel.comparison.text import footnotes
from hf_accel.config.recipe import load_recipe
from tests.support.reports import model_outcome


def models(recalls: dict[str, float], changed=None, rounds: int = 2, labels: int = 3) -> Comparison:
    """A comparison of recipes of these names; the more parameters and seconds, the later in the list.

    Args:
        recalls: name -> share of right images; names without a digit in front are recipes.
        changed: (name, round, report) -> None, changes a report.
    """
    runs, own = {}, []
    for place, (name, recall) in enumerate(recalls.items()):
        own.append(Entry(name, replace(load_recipe("digits"), name=name)))
        runs[name] = [model_outcome(n, recall, labels=labels, seconds=20.0 + 10 * place + n) for n in range(rounds)]
        for number, finished in enumerate(runs[name]):
            report = finished.measured
            report.model = replace(
                report.model,
                parameters=10**6 * (1 + place),
                flops_per_image=3 * 10**8 * (1 + place),
                cpu_latency_seconds=0.01 * (1 + place),
                cpu_latency_runs=50,
            )
            if changed:
                changed(name, number, report)
    return build_comparison(own, runs, own[0].name)


THREE = {"small": 0.5, "middle": 0.8, "large": 0.7}


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5), (2, 0.8), (3, 0.7)], [0, 1]),
        ([(3, 0.5), (2, 0.5), (1, 0.4)], [2, 1]),
        ([(1, 0.5), (1, 0.6)], [1]),
        ([(1, 0.5), (1, 0.5)], [0]),
        ([], []),
    ],
)
def test_the_front_holds_the_points_that_no_other_surpasses(points, front):
    assert pareto_front(points) == front


def test_a_row_has_size_latency_and_the_gap_between_train_and_test():
    found = models(THREE)
    row = found.rows[1]
    assert (row.parameters, row.flops_per_image) == (2 * 10**6, 6 * 10**8)
    assert row.mean("cpu_latency_seconds") == pytest.approx(0.02)
    assert row.mean("accuracy_gap") == pytest.approx(0.95 - 23 / 30)
    headings, rows = model_cells(found)
    assert [cells[0] for cells in rows] == ["middle", "large", "small"]  # the most accurate first
    cells = dict(zip(headings, rows[0], strict=True))
    assert cells["parameters"] == "2.00 M"
    assert cells["FLOPs per image"] == "0.60 G"
    assert cells["train - test"] == "+18.33 points"
    assert cells["CPU latency, 1 image"] == "20.0 ms"
    assert cells["front"] == "size, time"


def test_the_latency_names_its_cpu_and_its_passes():
    def few(name, number, report):
        report.environment = {**report.environment, "device": "A GPU"}
        report.model = replace(report.model, cpu_latency_runs=2 if name == "large" else 50)

    told = text_table(models(THREE, few))
    assert "on the CPU Test CPU, 2 cores, float32 and eager, the median of 2 to 50 forward passes" in told


def test_the_fronts_of_size_and_time_leave_out_a_larger_and_worse_model():
    assert models(THREE).fronts == {"parameters": ["small", "middle"], "seconds": ["small", "middle"]}


def test_accuracy_by_class_and_the_confused_pairs_come_from_the_confusion_matrices():
    found = models(THREE).classes
    # of 10 images of class 0, one less is right; the others are taken for the next class
    assert found.accuracy == {"small": [0.4, 0.5, 0.5], "middle": [0.7, 0.8, 0.8], "large": [0.6, 0.7, 0.7]}
    first, second = found.confusions[:2]
    assert (first["true"], first["predicted"], first["models"]) == ("class number 0", "class number 1", 3)
    assert first["share"] == pytest.approx((0.6 + 0.3 + 0.4) / 3)
    assert first["shares"] == pytest.approx({"small": 0.6, "middle": 0.3, "large": 0.4})
    assert second["share"] == pytest.approx((0.5 + 0.2 + 0.3) / 3)
    assert len(found.confusions) == 3  # no pair that nobody confuses


def test_a_model_with_few_of_its_mistakes_in_a_pair_does_not_confuse_it():
    def other(name, number, report):
        if name == "large":  # its mistakes in class 0 are in class 2, but for one of 10,000
            report.test.confusion = [[6000, 1, 3999], [0, 10, 0], [0, 0, 10]]

    pairs = models(THREE, other).classes.confusions
    assert {(pair["true"], pair["predicted"]): pair["models"] for pair in pairs}[
        "class number 0", "class number 1"
    ] == 2


def test_a_class_without_test_images_has_no_accuracy():
    def without(name, number, report):
        report.test.confusion = [[5, 0, 0], [1, 4, 0], [0, 0, 0]]

    found = models(THREE, without).classes
    assert found.accuracy["small"] == [1.0, 0.8, None]
    assert class_cells(found, "recipe")[1][0] == ["small", "80.0 %", "100.0 %", "-"]


def changed_labels(name, number, report):
    if name == "large":
        report.data = replace(report.data, labels=["a", "b", "c"])


def changed_images(name, number, report):
    report.data = replace(report.data, fingerprints={"test": "other" if name == "large" else f"seed {number}"})


def changed_data(name, number, report):
    if name == "large":
        report.data = replace(report.data, name="other pictures")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (changed_labels, "the classes of `large` are not those of `small`"),
        (changed_images, "the test images of `large` are not those of `small`"),
        (changed_data, "the test images of `large` are not those of `small`"),
    ],
)
def test_figures_by_class_of_other_data_are_left_out_with_the_reason(changed, reason, tmp_path):
    found = models(THREE, changed)
    assert found.classes is None
    expected = (
        f"Accuracy by class, the pairs of classes that are confused, and the Pareto fronts are left out: {reason}."
    )
    assert expected in footnotes(found)
    write_comparison(found, tmp_path, with_paper=False)
    page = write_comparison_page(tmp_path).read_text("utf-8")
    assert "are left out: the " in page
    assert "Pairs of classes that are confused</h2>" not in page
    assert "is the most accurate" not in page
    assert found.fronts == {}


def test_test_images_that_follow_the_seed_are_the_same_within_a_round():
    def sampled(name, number, report):
        report.data = replace(report.data, fingerprints={"test": f"seed {number}"})

    assert models(THREE, sampled).classes is not None


def test_variants_of_one_recipe_have_no_tables_of_models():
    found = models({"digits": 0.5})
    assert (found.classes, found.fronts, found.has_several_recipes) == (None, {}, False)


def test_all_four_files_have_the_figures(tmp_path):
    found = models(THREE)
    write_comparison(found, tmp_path, with_paper=False)
    assert Comparison.load(tmp_path) == found
    document = json.loads((tmp_path / "compare.json").read_text("utf-8"))
    assert document["fronts"]["parameters"] == ["small", "middle"]
    assert document["classes"]["confusions"][0]["models"] == 3
    for text in (markdown(found), latex(found)):
        for part in ("0.60 G", "20.0 ms", "class number 0", "3 of 3", "Pareto front of test accuracy and parameters"):
            assert part in text, part
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(csv_table(found)))}
    assert float(rows["middle"]["flops_per_image"]) == 6e8
    assert float(rows["middle"]["cpu_latency_seconds"]) == pytest.approx(0.02)
    assert float(rows["small"]["accuracy of class number 0"]) == 0.4
    assert float(rows["large"]["class number 0 taken for class number 1"]) == 0.4
    assert [rows[name]["fronts"] for name in THREE] == ["parameters; seconds", "parameters; seconds", ""]


@pytest.mark.slow
def test_a_comparison_of_an_earlier_version_is_still_read(tmp_path):
    found = models(THREE)
    write_comparison(found, tmp_path, with_paper=False)
    document = json.loads((tmp_path / "compare.json").read_text("utf-8"))
    for name in ("fronts", "classes"):
        del document[name]
    for row in document["arms"]:
        for name in ("flops_per_image", "accuracy_p_holm", "accuracy_verdict", "leaves_out"):
            del row[name]
    (tmp_path / "compare.json").write_text(json.dumps(document), "utf-8")
    assert Comparison.load(tmp_path).classes is None
    assert write_comparison_page(tmp_path).is_file()


@pytest.mark.slow
def test_the_page_of_42_models_names_the_front_and_folds_the_settings(tmp_path):
    recalls = {f"model_{place:02}": 0.4 + 0.1 * (place in (3, 20)) for place in range(42)}
    found = models(recalls, rounds=1)
    write_comparison(found, tmp_path, with_paper=False)
    page = write_comparison_page(tmp_path).read_text("utf-8")
    assert page_title(found) == "model_00, model_01, model_02 and 39 more"
    assert "<summary>Settings of the 42 rows</summary>" in page
    assert "<code>model_03</code> is the most accurate" in page
    assert len(text_table(found).splitlines()) < 110
    assert len(found.rows) > MOST_LABELLED
    plot = comparison_plots(found)["accuracy_by_parameters"]
    assert [text.get_text() for text in plot.figure.axes[0].texts] == ["model_00", "model_03"]
    assert plot.alt.endswith("Pareto front: model_00, model_03.")
    assert "Of 42 rows, those on the front and the baseline are named." in plot_legends(found)["accuracy_by_parameters"]
    assert "grey: the other 36" in plot_legends(found)["accuracy_by_class"]


def test_the_plot_by_class_has_one_line_per_model():
    found = models(THREE)
    axes = comparison_plots(found)["accuracy_by_class"].figure.axes[0]
    assert len(axes.lines) == 3
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"class number {n}" for n in range(3)]
    assert list(axes.lines[0].get_ydata()) == [40, 50, 50]


@pytest.mark.slow
def test_many_variants_of_one_recipe_are_all_named_and_odd_names_are_drawn():
    found = models(dict.fromkeys([f"_r$_{{{n}}}" for n in range(20)], 0.5))
    assert len(comparison_plots(found)["accuracy_by_class"].figure.legends[0].get_texts()) == 6
    found.fronts = {}  # as of variants
    assert len(comparison_plots(found)["accuracy_by_time"].figure.axes[0].texts) == 20


@pytest.mark.slow
def test_every_plot_is_saved_for_programs_without_svg(tmp_path):
    found = models(THREE)
    write_comparison(found, tmp_path, with_paper=False)
    write_comparison_page(tmp_path)
    names = {"speed", "memory", "accuracy_by_time", "accuracy_by_parameters", "accuracy_by_class"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{n}.{end}" for n in names for end in ("svg", "png")
    }


def test_of_many_classes_the_hardest_are_shown_and_the_rest_is_in_the_files():
    labels = [f"c{place}" for place in range(MOST_CLASSES + 5)]
    values = [1 - place / 100 for place in range(len(labels))]
    classes = Classes(labels=labels, accuracy={"a": values, "b": [None, *values[1:]]}, confusions=[])
    assert shown_classes(classes)[:2] == [len(labels) - 1, len(labels) - 2]
    headings, rows = class_cells(classes, "recipe")
    assert len(headings) == len(rows[0]) == MOST_CLASSES + 1


def test_rows_with_the_same_difference_are_named_together():
    def faster(name, number, report):
        if name != "small":
            report.train = replace(report.train, effective_batch_size=128)

    (line,) = [line for line in footnotes(models(THREE, faster)) if line.startswith("Rows that differ")]
    assert line.endswith("`middle`, `large`: effective batch 128 instead of 64.")
