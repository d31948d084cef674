"""docs/findings.md says what the result files say."""

import json
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # benchmarks/ is not installed

from benchmarks import findings, result_files  # noqa: E402

HEADINGS = ["arm", "images/s", "speed ratio (95 %)", "speed", "test accuracy", "accuracy difference (95 %)",
            "memory ratio (95 %)", "memory", "timing pairs", "seeds"]  # fmt: skip


def row(
    name, speed, word, accuracy="+0.00 (-0.10 to +0.10)", memory=("1.00 (0.99 to 1.01)", "no measurable difference")
):
    return [name, "1", speed, word, "90 %", accuracy, *memory, "5", "5"]


def write(folder, name, lines):
    text = "\n".join(json.dumps({"time": f"2026-01-0{day}T00:00:00", "commit": "abc", **line}) for day, line in lines)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def compared(*rows, recipe="resnet20_cifar10", quick=False):
    settings = {"recipe": recipe, "quick": quick}
    return {
        "target": "benchmarks.compare:compare",
        "settings": settings,
        "round": 0,
        "result": {"tables": [[HEADINGS, *rows]]},
    }


def test_the_document_is_current():
    written = (REPOSITORY / "docs" / "findings.md").read_text("utf-8")
    assert written == findings.document(), "run python -m benchmarks.findings"


def test_without_results_nothing_is_claimed(tmp_path):
    text = findings.document(tmp_path)
    assert not re.search(r"\d\.\d", text.split("## Training")[1])
    assert text.count("ot yet measured") == 3 + 5 + 2  # domains, sections, kinds of inference


def test_the_newest_comparison_counts_and_rehearsals_do_not(tmp_path):
    lines = [
        (2, compared(row("bf16", "1.50 (1.40 to 1.60)", "faster"))),
        (1, compared(row("bf16", "9.00 (8.00 to 9.50)", "faster"))),
        (3, compared(row("bf16", "7.00 (6.00 to 8.00)", "faster"), quick=True)),
    ]
    write(tmp_path, "compare_here.jsonl", lines)
    found = {domain.recipe: rows for domain, rows in result_files.comparisons(tmp_path).items()}
    assert found["resnet20_cifar10"]["bf16"].ratio == 1.5
    assert found["xlnet_amazon_polarity"] == {}


def test_each_machine_has_a_column_of_its_own(tmp_path):
    write(tmp_path, "compare_a-cpu_2026-01-01.jsonl", [(1, compared(row("bf16", "0.50 (0.40 to 0.60)", "slower")))])
    write(tmp_path, "compare_a-gpu_2026-01-02.jsonl", [(2, compared(row("bf16", "2.00 (1.90 to 2.10)", "faster")))])
    text = findings.document(tmp_path)
    assert "| `bf16`: mixed precision, bf16 | **0.50 (0.40 to 0.60)** | **2.00 (1.90 to 2.10)** |" in text
    assert "a-cpu, 5 rounds; (2)" in text


def test_what_follows_is_sorted_by_gain_and_names_what_costs(tmp_path):
    rows = [
        row("bf16", "1.20 (1.10 to 1.30)", "faster"),
        row("compile", "1.40 (1.30 to 1.50)", "faster"),
        row("checkpointing", "0.50 (0.40 to 0.60)", "slower", memory=("0.66 (0.64 to 0.68)", "less")),
        row("pin", "1.00 (0.90 to 1.10)", "no measurable difference"),
        row("ga_larger_batch", "1.0", "no measurable difference", accuracy="-4.00 (-6.00 to -2.00)"),
        row("fp16", "-", "failed"),
    ]
    write(tmp_path, "compare_here.jsonl", [(1, compared(*rows))])
    text = findings.document(tmp_path)
    assert "largest gain first: `compile` 1.40 (1.30 to 1.50), `bf16` 1.20 (1.10 to 1.30)." in text
    assert "Cost speed: `checkpointing` 0.50 (0.40 to 0.60)." in text
    assert "Need less memory: `checkpointing` 0.66 (0.64 to 0.68)." in text
    assert "Cost accuracy in these short runs: `ga_larger_batch` -4.00 (-6.00 to -2.00) points." in text
    assert "| `bf16`: mixed precision, bf16 | **1.20 (1.10 to 1.30)** |" in text


def test_a_ratio_is_taken_within_a_round(tmp_path):
    def line(target, rate, number):
        settings = {"model": "timm/resnet50", "flags": {}}
        result = {"images_per_second": rate}
        return 1, {"target": f"benchmarks.{target}", "settings": settings, "round": number, "result": result}

    lines = [line("ours:ours", 20.0 * scale, n) for n, scale in enumerate((1, 2, 3))]
    lines += [line("hf_example:train", 10.0 * scale, n) for n, scale in enumerate((1, 2, 3))]
    lines += [line("hf_example:train", 99.0, -1)]
    write(tmp_path, "peers_here.jsonl", lines)
    assert "| timm/resnet50 | HF example, default flags | 2.00 (2.00 to 2.00) | 3 |" in findings.document(tmp_path)


def test_a_technique_under_two_processes_is_compared_with_two_processes(tmp_path):
    def line(variant, rate, number):
        settings = {"recipe": "resnet20_cifar10", "variant": variant, "quick": False}
        return 1, {"settings": settings, "round": number, "result": {"images_per_second": rate}}

    lines = [line("baseline", 10.0 * scale, n) for n, scale in enumerate((1, 2, 3))]
    lines += [line("bf16", 15.0 * scale, n) for n, scale in enumerate((1, 2, 3))]
    write(tmp_path, "distributed_here.jsonl", lines)
    assert "| small images | `bf16`: mixed precision, bf16 | 1.50 (1.50 to 1.50) | 3 |" in findings.document(tmp_path)


def test_forward_passes_are_those_of_the_newest_profile(tmp_path):
    def line(day, speedup):
        steps = ["vit: Steps and phases", ["", "baseline", "all", "speed-up over baseline"],
                 [["step", "2 s", "1 s", "2.00x"], ["inference, one row", "4 ms", "2 ms", speedup]]]  # fmt: skip
        return day, {"settings": {"workload": "vit"}, "round": 0, "result": {"tables": [steps]}}

    write(tmp_path, "profiles_here.jsonl", [line(1, "9.00x"), line(2, "2.00x")])
    text = findings.document(tmp_path)
    assert "| vit | one row | 4 ms | 2 ms | 2.00x |" in text
    assert "9.00x" not in text


def test_tables_of_inference_are_taken_over(tmp_path):
    text = "## old\n\n**Old**\n\n| a |\n|---|\n| 1 |\n\n## new\n\n- note\n\n**New**\n\n| b |\n|---|\n| 2 |\n"
    (tmp_path / "compact_here.md").write_text(text)
    (part, _) = findings.inference(tmp_path)
    assert "| 2 |" in part
    assert "| 1 |" not in part


@pytest.mark.parametrize(("cell", "number"), [("1,061", 1061.0), ("-0.27 (-0.60 to +0.06)", -0.27), ("-", None)])
def test_the_number_of_a_cell(cell, number):
    assert result_files.leading_number(cell) == number
