"""Tables that state labels: CSV, TSV, JSON lines and parquet -> columns of plain values; only the last needs a library."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from hf_accel.data.rows import require_datasets
from hf_accel.errors import UserError

JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".csv", ".tsv", *JSON_LINES, ".parquet")
_DELIMITERS = ",;\t"  # of a .csv: programs write the one that their language does not use in numbers


def read_plain_table(where: str, path: Path) -> dict[str, list]:
    """Column name -> values, all of one length; those of a CSV are text.

    Args:
        where: for messages.
    Raises:
        UserError: the file cannot be read, or is not what its ending says.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(where, path)
        if path.suffix.lower() in JSON_LINES:
            return _read_json_lines(where, path)
        return _read_csv(where, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: cannot be read: {error}") from error


def plain_labels(where: str, column: str, labels: list) -> list:
    """Labels of one type: whole numbers where all are (a CSV has text only), truth values, else text."""
    for number, label in enumerate(labels):
        if label is not None and not isinstance(label, (str, int)):
            raise UserError(
                f"{where}, row {number}: {column} is {label!r}, expected one label: text or a whole number."
            )
    present = [label for label in labels if label not in (None, "")]
    if all(isinstance(label, bool) for label in present):
        return labels
    if all(not isinstance(label, bool) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", str(label)) for label in present):
        return [None if label in (None, "") else int(label) for label in labels]
    return [None if label is None else str(label) for label in labels]


def _read_parquet(where: str, path: Path) -> dict[str, list]:
    require_datasets(where)
    import pyarrow as pa  # here: an exported model is scored on a folder of pictures without it
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pydict()
    except pa.ArrowException as error:
        raise UserError(f"{where}: cannot be read: {error}") from error


def _read_csv(where: str, path: Path) -> dict[str, list]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
        reader = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise UserError(
                f"{where}, row {number}: has {len(row)} values, expected {len(header)}: {', '.join(header)}"
            )
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _read_json_lines(where: str, path: Path) -> dict[str, list]:
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}, line {number + 1}: is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}, line {number + 1}: is {line.strip()[:40]}, expected an object with file_name")
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in columns}
