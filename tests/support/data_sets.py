"""Small data sets written by the tests, and what the tests ask of a split."""

import io
import json
import zlib
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest

from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import load_splits
from hf_accel.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def tables_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("tables"))
        yield


def png(value: int, size: tuple[int, int] = (6, 4), blue: int = 0) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, (value % 256, value // 256, blue)).save(buffer, format="PNG")
    return buffer.getvalue()


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    """Something with shapes: smooth noise, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    """Class folders with this many images each; the red value of an image is its number, the blue one that of its folder."""
    for folder, count in counts.items():
        blue = zlib.crc32(folder.encode("utf-8", "surrogateescape")) % 256
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:03}.png").write_bytes(png(number, blue=blue))
    return root


def write_metadata(folder: Path, labels: list) -> Path:
    """Images in one folder, whose labels a metadata.jsonl states."""
    write_folder(folder, {"x": len(labels)})
    for number in range(len(labels)):
        (folder / "x" / f"{number:03}.png").rename(folder / f"{number:03}.png")
    (folder / "x").rmdir()
    rows = [json.dumps({"file_name": f"{number:03}.png", "label": label}) for number, label in enumerate(labels)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def write_parquet(
    root: Path, splits: dict[str, list], feature=None, image: str = "image", label: str = "label", **more
) -> Path:
    """A split for each list of labels; red and green of an image hold its row number, blue that of the split."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    for blue, (split, labels) in enumerate(splits.items()):
        rows = {image: [{"bytes": png(n, blue=blue), "path": f"{n}.png"} for n in range(len(labels))], label: labels}
        table = datasets.Dataset.from_dict(rows | {name: [value] * len(labels) for name, value in more.items()})
        table = table.cast_column(image, datasets.Image())
        table = table if feature is None else table.cast_column(label, feature)
        table.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def load(name: str | Path, seed: int = 0, selection: bool = True, **settings):
    return load_splits(DataSettings(name=str(name), **settings), seed, selection)


def refusal(name: str | Path, **settings) -> str:
    with pytest.raises(UserError) as refused:
        load(name, **settings)
    return str(refused.value)


def counts(split) -> list[int]:
    return np.bincount(split.labels, minlength=len(split.label_names)).tolist()


def origins(split) -> set[int]:
    return set(range(len(split))) if split.rows is None else set(split.rows.tolist())
