"""Class folders of images packed into shards, as a large data set is published."""

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq


def labelled_files(split: Path) -> tuple[list[Path], list[str]]:
    """The images below a split, in an order that mixes the classes, and the names of the classes."""
    files = sorted(path for path in split.rglob("*") if path.is_file())
    order = np.random.RandomState(0).permutation(len(files))
    return [files[row] for row in order], sorted({path.parent.name for path in files})


def pack_parquet(images: Path, target: Path, rows_per_shard: int, rows_per_part: int) -> Path:
    """Parquet shards `data/SPLIT-00000-of-00004.parquet` with class labels, for each folder of a split below `images`."""
    (target / "data").mkdir(parents=True)
    for split in sorted(path for path in images.iterdir() if path.is_dir()):
        files, names = labelled_files(split)
        features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
        starts = range(0, len(files), rows_per_shard)
        for number, start in enumerate(starts):
            shard = files[start : start + rows_per_shard]
            rows = {"image": [{"bytes": path.read_bytes(), "path": path.name} for path in shard],
                    "label": [path.parent.name for path in shard]}  # fmt: skip
            table = datasets.Dataset.from_dict(rows, features=features).cast_column("image", datasets.Image())
            name = f"{split.name}-{number:05}-of-{len(starts):05}.parquet"
            pq.write_table(table.with_format("arrow")[:], target / "data" / name, row_group_size=rows_per_part)
    return target


def pack_tar(images: Path, target: Path, rows_per_shard: int) -> Path:
    """Webdataset archives `SPLIT-0000.tar` of the same rows, the numbers of the classes in `.cls` files."""
    target.mkdir(parents=True)
    for split in sorted(path for path in images.iterdir() if path.is_dir()):
        files, names = labelled_files(split)
        for start in range(0, len(files), rows_per_shard):
            with tarfile.open(target / f"{split.name}-{start // rows_per_shard:04}.tar", "w") as archive:
                for row, path in enumerate(files[start : start + rows_per_shard]):
                    add_file(archive, f"{start + row:06}{path.suffix}", path.read_bytes())
                    add_file(archive, f"{start + row:06}.cls", str(names.index(path.parent.name)).encode())
    return target


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
