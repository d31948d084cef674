"""The files in benchmarks/results/ as data: single measurements, and the newest comparison for each kind of data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Domain:
    """A kind of data, and the comparison that stands for it."""

    name: str
    recipe: str
    what: str


DOMAINS = (
    Domain("small images", "resnet20_cifar10", "ResNet-20 from scratch on CIFAR-10, 32 px"),
    Domain("large images", "mobilenetv2_imagefolder", "MobileNetV2, fine-tuned on photographs, 224 px"),
    Domain(
        "text", "xlnet_amazon_polarity", "XLNet of two small layers from scratch on Amazon reviews, up to 128 tokens"
    ),
)


def entries(results: Path, benchmark: str) -> list[dict[str, Any]]:
    """Every measurement of a benchmark that did not fail, oldest first; each knows its file and its machine."""
    found = []
    for path in results.glob(f"{benchmark}_*.jsonl"):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        place = {"file": path.name, "machine": machine_of(path)}
        found += [line | place for line in lines if "error" not in line["result"] and not line["settings"].get("quick")]
    return sorted(found, key=lambda line: line["time"])


def machine_of(path: Path) -> str:
    """The machine in the name of a results file.

    >>> machine_of(Path("compare_amd-epyc-2-cores_2026-11-22.jsonl"))
    'amd-epyc-2-cores'
    """
    return re.sub(r"_\d{4}-\d\d-\d\d.*", "", path.name.partition("_")[2])


@dataclass(frozen=True)
class Verdict:
    """A row of a comparison, as its table has it."""

    speed: str  # "1.17 (1.07 to 1.28)"
    speed_word: str  # faster, slower, no measurable difference, failed...
    memory: str
    memory_word: str
    accuracy: str  # "-0.27 (-0.60 to +0.06)", points
    pairs: str

    @property
    def ratio(self) -> float | None:
        return leading_number(self.speed)


def leading_number(cell: str) -> float | None:
    """The number with which a cell begins.

    >>> leading_number("1.17 (1.07 to 1.28)"), leading_number("-")
    (1.17, None)
    """
    found = re.match(r"[+-]?\d[\d,.]*", cell)
    return float(found[0].replace(",", "")) if found else None


def comparisons(results: Path) -> dict[Domain, dict[str, Verdict]]:
    """The rows of the newest comparison in each domain on each machine, by variant; {} for a domain without one."""
    found: dict[Domain, dict[str, Verdict]] = {}
    lines = entries(results, "compare")
    for domain in DOMAINS:
        newest = {line["machine"]: line for line in lines if line["settings"]["recipe"] == domain.recipe}
        for machine, line in newest.items():
            rows = verdicts_of(line)
            rounds = max(
                (row.pairs for row in rows.values()), key=lambda pairs: leading_number(pairs) or 0, default="-"
            )
            found[replace(domain, what=f"{domain.what}; {machine}, {rounds} rounds")] = rows
        if not newest:
            found[domain] = {}
    return found


def verdicts_of(line: dict[str, Any]) -> dict[str, Verdict]:
    """Variant -> its row in a comparison."""
    headings, *rows = line["result"]["tables"][0]
    names = (
        "speed ratio (95 %)",
        "speed",
        "memory ratio (95 %)",
        "memory",
        "accuracy difference (95 %)",
        "timing pairs",
    )
    places = [headings.index(name) for name in names]
    return {row[0]: Verdict(*(row[place] for place in places)) for row in rows}


def newest(lines: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
    """Measurements by key, of the newest file that has the key alone: other days are other conditions."""
    files = {key(line): line["file"] for line in lines}  # the last one stays
    found: dict[Any, list[dict[str, Any]]] = {}
    for line in lines:
        if files[key(line)] == line["file"]:
            found.setdefault(key(line), []).append(line)
    return found
