"""`data.name` of texts -> the tables it stands for: a file or a folder of this machine, or a data set of the Hub."""

from __future__ import annotations

import os
from pathlib import Path

import datasets

from hf_accel.config.sections import DataSettings
from hf_accel.data.listing import Listing, is_local_name, list_files, neighbouring_folders, require_utf8
from hf_accel.data.sources import (
    Source,
    content_of,
    open_hub,
    open_parquet_folder,
    said_clearly,
    source_of_tables,
    table_fingerprints,
)
from hf_accel.errors import UserError

# By ending: the kind, with the settings with which `datasets` reads it. An empty cell is missing; the text "NA" is a text.
CSV = {"keep_default_na": False, "na_values": [""]}
KINDS: dict[str, tuple[str, dict]] = {
    ".csv": ("csv", CSV),
    ".tsv": ("csv", {**CSV, "sep": "\t"}),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), ("json", {})),
    ".parquet": ("parquet", {}),
}
EXPECTED = "a folder of CSV, JSON lines or parquet files, or one that save_to_disk wrote"
_SAVED_ALL, _SAVED_ONE = "dataset_dict.json", "state.json"  # files of save_to_disk


def open_text_source(settings: DataSettings) -> Source:
    """Find and open what `data.name` stands for. What is on this machine comes before a data set of the Hub.

    Raises:
        UserError: there is no such thing, it holds no tables, or they cannot be read.
    """
    path, where = Path(settings.name).expanduser(), f"data.name {settings.name}"
    if path.is_file():
        if _ending(path.name) not in KINDS:
            raise UserError(f"{where}: is a file of another kind. Expected {', '.join(KINDS)}, or {EXPECTED}.")
        return _open_files(settings, path.parent, [path.name], {"data_files": path.name})
    if (path / _SAVED_ALL).is_file() or (path / _SAVED_ONE).is_file():
        with said_clearly(where):
            saved = datasets.load_from_disk(str(path))
        return source_of_tables(where, saved if isinstance(saved, datasets.DatasetDict) else {"train": saved})
    if path.is_dir():
        return _open_folder(settings, path)
    if is_local_name(settings.name):
        raise UserError(f"{where}: no such file or folder. {neighbouring_folders(path)}")
    return open_hub(settings)


def _open_folder(settings: DataSettings, folder: Path) -> Source:
    listing = list_files(folder)
    names = [name for name in listing.files if _ending(name) in KINDS]
    kinds = {KINDS[_ending(name)][0] for name in names}
    where = f"data.name {settings.name}"
    if not names:
        raise UserError(f"{where}: none of its {len(listing.files)} files holds a table. Expected {EXPECTED}.")
    if len(kinds) > 1 or len({_ending(name) for name in names} & {".csv", ".tsv"}) > 1:
        endings = ", ".join(sorted({_ending(name) for name in names}))
        raise UserError(
            f"{where}: holds files of several kinds ({endings}). Expected one kind: name a file or a folder."
        )
    if kinds == {"parquet"}:
        return open_parquet_folder(settings, folder, listing, names)
    return _open_files(settings, folder, names, {}, listing)


def _open_files(
    settings: DataSettings, folder: Path, names: list[str], which: dict[str, str], listing: Listing | None = None
) -> Source:
    where = f"data.name {settings.name}"
    require_utf8(where, names)
    with said_clearly(where):
        reading = KINDS[_ending(names[0])][1]
        tables = dict(datasets.load_dataset(str(folder.resolve()), settings.config, **which, **reading))
    fingerprints = table_fingerprints(settings, content_of(folder, names), tables)
    return source_of_tables(where, tables, fingerprints, [] if listing is None else listing.notes())


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
