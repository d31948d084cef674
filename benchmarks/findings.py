"""`python -m benchmarks.findings`: docs/findings.md, written from the files in benchmarks/results/ and from nothing else.

It says which technique pays for which data, with intervals. A figure that no file holds is "not yet measured".
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.result_files import DOMAINS, Domain, Verdict, comparisons, entries, leading_number, newest
from hf_accel.cli import run
from hf_accel.files import write_whole
from hf_accel.formatting import format_quantity
from hf_accel.measure.paired import paired_difference, paired_ratio

RESULTS = REPOSITORY / "benchmarks" / "results"
DOCUMENT = REPOSITORY / "docs" / "findings.md"
UNKNOWN = "not yet measured"
INTRODUCTION = """\
# Findings

Which technique pays for which data. This page is written by `python -m benchmarks.findings` from the files in
[benchmarks/results](../benchmarks/results); [benchmarks](../benchmarks/README.md) says how each figure is measured. Intervals
are 95 %; a bold ratio is beyond chance after correction for the number of techniques (Holm), and above 1 means faster. On
another machine other techniques pay: `hf-accel compare` measures them there, and `hf-accel profile` says why."""


TECHNIQUES = {  # variant -> what it is
    "bf16": "mixed precision, bf16",
    "channels_last": "NHWC weights",
    "cached": "every image is decoded, every text tokenised once",
    "device_transforms": "whole batches are transformed at once",
    "keep_freed_memory": "the allocator of a CPU keeps freed memory",
    "cpu_kernels": "bf16 with replaced CPU kernels",
    "fused_optimizer": "AdamW in one kernel",
    "compile": "`torch.compile`",
    "pin": "pinned memory",
    "progressive_resizing": "smaller images in the first epochs",
    "group_by_length": "texts of similar length in a batch",
    "ga_same_batch": "gradient accumulation, same effective batch",
    "ga_larger_batch": "gradient accumulation, four times the batch",
    "checkpointing": "activations are computed twice",
    "all": "all that keep the result",
    "default": "the recipe as it is shipped",
}
TOGETHER = ("all", "default")
SOURCES = ("compare", "finetuning", "inputs", "peers", "distributed", "scaling", "profiles", "compact", "prediction")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.findings", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the document; default: docs/findings.md")
    options = parser.parse_args(argv)
    write_whole(options.output, document(options.results))
    print(options.output)
    return 0


def document(results: Path = RESULTS) -> str:
    """The whole page, as Markdown."""
    compared = comparisons(results)
    parts = [INTRODUCTION, "## Training", *training(compared), "## What follows", *follows(compared)]
    for title, benchmark, section, unknown in SECTIONS:
        parts.append(f"## {title}")
        by_machine: dict[str, list[dict[str, Any]]] = {}
        for line in entries(results, benchmark):
            by_machine.setdefault(line["machine"], []).append(line)
        for machine, lines in by_machine.items():
            parts += [f"On {machine}. {text}" if number == 0 else text for number, text in enumerate(section(lines))]
        parts += [] if by_machine else [f"{unknown}: {UNKNOWN}."]
    parts += ["## Inference", *inference(results), "## Sources", sources(results)]
    return "\n\n".join(parts) + "\n"


def training(compared: dict[Domain, dict[str, Verdict]]) -> list[str]:
    """Speed, then memory and accuracy, of every technique in every domain."""
    shown = [name for name in TECHNIQUES if any(name in rows for rows in compared.values())]
    titles = [f"{domain.name} ({number})" for number, domain in enumerate(compared, start=1)]
    speed = [[_named(name), *(_speed(rows.get(name), rows) for rows in compared.values())] for name in shown]
    costs = [
        [_named(name), *(cell for rows in compared.values() for cell in _costs(rows.get(name), rows))] for name in shown
    ]
    cost_headings = ["technique", *(f"{title}: {what}" for title in titles for what in ("memory", "accuracy, points"))]
    domains = "; ".join(f"({number}) {domain.what}" for number, domain in enumerate(compared, start=1))
    return [
        "Ratio of the speed to that of the stock settings (`baseline`): images/s, or samples/s of text. Evaluation, saving, "
        f"compilation and warm-up steps are left out. {domains}.",
        _table(["technique", *titles], speed),
        "The same techniques: ratio of the peak memory (below 1 is less), and difference of test accuracy.",
        _table(cost_headings, costs),
    ]


def _named(name: str) -> str:
    return f"`{name}`: {TECHNIQUES[name]}"


def _speed(row: Verdict | None, domain: dict[str, Verdict]) -> str:
    if row is None:
        return "-" if domain else UNKNOWN
    return f"**{row.speed}**" if row.speed_word in ("faster", "slower") else row.speed


def _costs(row: Verdict | None, domain: dict[str, Verdict]) -> tuple[str, str]:
    if row is None:
        return ("-", "-") if domain else (UNKNOWN, UNKNOWN)
    memory = f"**{row.memory}**" if row.memory_word in ("less", "more") else row.memory
    return memory, row.accuracy


def follows(compared: dict[Domain, dict[str, Verdict]]) -> list[str]:
    """What a user learns, one list per domain, from the verdicts alone."""
    parts = []
    for domain, all_rows in compared.items():
        rows = {name: row for name, row in all_rows.items() if name in TECHNIQUES}
        single = {name: row for name, row in rows.items() if name not in TOGETHER}
        lines = [_listed(single, word, text) for word, text in (
            ("faster", "Pay by themselves, the largest gain first: {}."),
            ("slower", "Cost speed: {}."),
            ("no measurable difference", "Make no measurable difference by themselves: {}."),
        )]  # fmt: skip
        lines += [_less_memory(single), _lower_accuracy(rows)]
        lines += [f"Together (`{name}`): {rows[name].speed}." for name in TOGETHER if name in rows]
        text = "\n".join(f"- {line}" for line in lines if line) if rows else f"- {UNKNOWN.capitalize()}."
        parts.append(f"**{domain.name.capitalize()}** ({domain.what}):\n\n{text}")
    return parts


def _listed(rows: dict[str, Verdict], word: str, text: str) -> str | None:
    found = [(row.ratio or 0.0, name, row.speed) for name, row in rows.items() if row.speed_word == word]
    names = [f"`{name}` {speed}" for _, name, speed in sorted(found, reverse=word != "slower")]
    return text.format(", ".join(names)) if names else None


def _less_memory(rows: dict[str, Verdict]) -> str | None:
    found = [(leading_number(row.memory) or 0.0, name, row) for name, row in rows.items() if row.memory_word == "less"]
    names = [f"`{name}` {row.memory}" for _, name, row in sorted(found, key=lambda entry: entry[:2])]
    return f"Need less memory: {', '.join(names)}." if names else None


def _lower_accuracy(rows: dict[str, Verdict]) -> str | None:
    """Techniques whose interval of the accuracy difference lies below zero."""
    found = [(name, row) for name, row in rows.items() if (high := _upper(row.accuracy)) is not None and high < 0]
    names = [f"`{name}` {row.accuracy} points" for name, row in found]
    return f"Cost accuracy in these short runs: {', '.join(names)}." if names else None


def _upper(cell: str) -> float | None:
    found = re.search(r"to ([+-][\d.]+)\)", cell)
    return float(found[1]) if found else None


def fine_tuning(lines: list[dict[str, Any]]) -> list[str]:
    """Each technique of fine-tuning against the plain recipe: seeds are pairs."""
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for line in lines:
        settings = line["settings"]
        runs.setdefault((settings["network"], settings["technique"]), {})[settings["seed"]] = line["result"]
    rows = []
    for (network, technique), by_seed in runs.items():
        plain = runs.get((network, "plain"), {})
        seeds = sorted(by_seed.keys() & plain.keys())
        accuracy = sum(by_seed[seed]["accuracy"] for seed in seeds) / len(seeds) if seeds else None
        cells = ["-" if accuracy is None else f"{100 * accuracy:.2f} %"]
        if technique == "plain" or not seeds:
            cells += ["-", "1" if technique == "plain" else "-"]
        else:
            cells += [
                _difference([by_seed[s]["accuracy"] for s in seeds], [plain[s]["accuracy"] for s in seeds]),
                _ratio([plain[s]["train_seconds"] for s in seeds], [by_seed[s]["train_seconds"] for s in seeds]),
            ]
        rows.append([network, technique, *cells, str(len(seeds))])
    headings = ["network", "technique", "test accuracy", "difference to plain, points", "speed-up of training", "seeds"]
    text = "The recipe `finetune` on 600 photographs of clothes with one technique each; one seed has no interval."
    return [text, _table(headings, rows)]


def input_path(lines: list[dict[str, Any]]) -> list[str]:
    """The rates of the training transform on one core, against the chain of Pillow."""
    one_core = [line for line in lines if line["settings"].get("one_core")]
    rows = []
    for source, own in newest(one_core, lambda line: line["settings"]["source"]).items():
        rates = {name: [line["result"][name] for line in own] for name in own[0]["result"]}
        plain = rates["PIL chain, from the file"]
        for name, values in rates.items():
            middle = sorted(values)[len(values) // 2]
            rows.append([source, name, format_quantity(middle), _ratio(values, plain), str(len(values))])
    headings = ["images", "way", "images/s (median)", "speed-up over the PIL chain", "rounds"]
    return ["Decoding, random crop, flip and normalisation to 224 px, on one core.", _table(headings, rows)]


def alternatives(lines: list[dict[str, Any]]) -> list[str]:
    """Whole training against the Hugging Face example and timm, per round."""
    in_turn = [line for line in lines if line["round"] >= 0]
    found = newest(in_turn, lambda line: (line["settings"]["model"], _program(line)))
    rates = {key: {line["round"]: line["result"]["images_per_second"] for line in own} for key, own in found.items()}
    rows = []
    for (model, program), theirs in rates.items():
        ours = rates.get((model, "hf_accel"), {})
        shared = sorted(ours.keys() & theirs.keys())
        if program != "hf_accel" and shared:
            ratio = _ratio([ours[number] for number in shared], [theirs[number] for number in shared])
            rows.append([model, program, ratio, str(len(shared))])
    headings = ["network, 224 px", "program", "speed-up of hf_accel", "rounds"]
    return ["Training images/s of this package over those of each program.", _table(headings, sorted(rows))]


def _program(line: dict[str, Any]) -> str:
    target = line["target"].partition(":")[0].rpartition(".")[2]
    if target == "timm_script":
        return "timm `train.py`, best flags"
    if target == "hf_example":
        return "HF example, best flags" if line["settings"]["flags"] else "HF example, default flags"
    return "hf_accel"


def two_processes(lines: list[dict[str, Any]]) -> list[str]:
    """Each technique over the stock settings, both trained by two processes, per round."""
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for line in lines:
        settings = line["settings"]
        of_variant = rates.setdefault((settings["recipe"], settings["variant"]), {})
        of_variant[line["round"]] = line["result"]["images_per_second"]
    named = {domain.recipe: domain for domain in DOMAINS}
    rows = []
    for (recipe, variant), by_round in rates.items():
        plain = rates.get((recipe, "baseline"), {})
        rounds = sorted(by_round.keys() & plain.keys())
        if variant == "baseline" or not rounds:
            continue
        ratio = _ratio([by_round[n] for n in rounds], [plain[n] for n in rounds])
        rows.append([named[recipe].name, _named(variant), ratio, str(len(rounds))])
    text = (
        "`accelerate launch` with two processes, which on a CPU share its cores; rows/s of both together over those of the "
        "stock settings, also in two processes. Not corrected for the number of techniques. "
        + "; ".join(f"{domain.name}: {domain.what}" for domain in DOMAINS)
        + "."
    )
    return [text, _table(["data", "technique", "speed-up", "rounds"], rows)]


def second_process(lines: list[dict[str, Any]]) -> list[str]:
    """Two processes on the cores of one, in each cache mode."""
    rates: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        settings = line["settings"]
        if settings["images"] == 50_000:
            of_cache = rates.setdefault(settings["cache"], {})
            of_cache.setdefault(settings["processes"], []).append(line["result"]["images_per_second"])
    rows = [
        [
            cache,
            *(", ".join(format_quantity(rate) for rate in by_processes.get(number, [])) or "-" for number in (1, 2)),
        ]
        for cache, by_processes in rates.items()
    ]
    text = (
        "ResNet-20 on 50,000 images of CIFAR-10, images/s of all processes together, every measurement; both processes share the "
        "cores of one, so this says what a second process costs."
    )
    return [text, _table(["cache", "one process", "two processes"], rows)]


def inference(results: Path) -> list[str]:
    """Forward passes of the profiles; then the newest tables on prediction and on exported networks, as they are."""
    parts = inference_of_profiles(entries(results, "profiles"))
    for benchmark, what in (("compact", "exported networks and int8"), ("prediction", "`hf-accel predict`")):
        files = sorted(results.glob(f"{benchmark}_*.md"))
        tables = _last_tables(files[-1].read_text("utf-8")) if files else ""
        title = what[0].upper() + what[1:]
        parts.append(f"{title}:\n\n{tables}" if tables else f"{title}: {UNKNOWN} (`python -m benchmarks.{benchmark}`).")
    return parts


def inference_of_profiles(lines: list[dict[str, Any]]) -> list[str]:
    """Forward passes with all techniques that keep the result, over those of the stock settings; one run of each."""
    rows = []
    for line in {line["settings"]["workload"]: line for line in lines}.values():  # the newest
        workload = line["settings"]["workload"]
        tables = {title: body for title, _, body in line["result"]["tables"]}
        for phase, *cells in tables[f"{workload}: Steps and phases"]:
            if phase.startswith("inference"):
                rows.append([workload, phase.removeprefix("inference, "), *cells])
    headings = ["network", "forward passes of", "baseline", "all", "speed-up"]
    text = "Forward passes of four networks, `all` over `baseline`, by `hf-accel profile`; n = 1, so without intervals."
    return [text, _table(headings, rows)] if rows else []


def _last_tables(text: str) -> str:
    """The titles and tables of the last section of a results file."""
    section = text.rpartition("\n## ")[2]
    blocks = [block.strip() for block in section.split("\n\n")]
    return "\n\n".join(block for block in blocks if block.startswith(("|", "**")))


def sources(results: Path) -> str:
    """Every file that was read, with the days and the commits of its measurements, and the machine and the versions."""
    rows = []
    for benchmark in SOURCES:
        for path in sorted(results.glob(f"{benchmark}_*.jsonl")):
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            days = sorted({line["time"][:10] for line in lines})
            commits = list(dict.fromkeys((line.get("commit") or "-")[:8] for line in lines))
            link = f"[{path.name}](../benchmarks/results/{path.name})"
            rows.append([link, ", ".join(days), ", ".join(commits), str(len(lines)), _machine_line(path)])
    return _table(["file", "measured", "commits", "measurements", "machine and versions"], rows)


def _machine_line(path: Path) -> str:
    """The first two notes of the tables next to a file: the machine and the versions of the libraries."""
    tables = path.with_suffix(".md")
    notes = re.findall(r"^- (.+)$", tables.read_text("utf-8"), re.MULTILINE)[:2] if tables.is_file() else []
    return re.sub(r", commit \w+(-dirty)?", "", "; ".join(notes)) or "-"


def _ratio(values: Sequence[float], baseline: Sequence[float]) -> str:
    found = paired_ratio(values, baseline)
    interval = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.ratio:.2f}{interval}"


def _difference(values: Sequence[float], baseline: Sequence[float]) -> str:
    mean, low, high = paired_difference(values, baseline)
    interval = "" if low is None or high is None else f" ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"{100 * mean:+.2f}{interval}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose cells may hold code and bold figures."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# title, benchmark, its part of the page, and what is not known without it
SECTIONS = (
    ("Fine-tuning", "finetuning", fine_tuning, "Techniques of fine-tuning"),
    ("Preparing images", "inputs", input_path, "Reading, decoding and transforming"),
    ("Against the alternatives", "peers", alternatives, "Against the Hugging Face example and timm"),
    ("Techniques under two processes", "distributed", two_processes, "Techniques under two processes"),
    ("One process and two", "scaling", second_process, "A second process"),
)


if __name__ == "__main__":
    raise SystemExit(run(main))
