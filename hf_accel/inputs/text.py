"""Texts as the DataLoader sees them: each is tokenised once, and a batch is padded to its longest row when it is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from hf_accel import terminal
from hf_accel.config.sections import DataSettings
from hf_accel.data.text import TextSplit, joined
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.inputs.cache import fits_in_memory
from hf_accel.inputs.disk_cache import cache_folder

MULTIPLE = 8  # lengths of batches: matrix units work in blocks of this size, and fewer lengths are compiled
IDS, TYPES, MASK = "input_ids", "token_type_ids", "attention_mask"
_PORTION = 1000  # rows


@dataclass(frozen=True)
class Tokenising:
    """How a text becomes numbers."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int  # tokens, the special ones included

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        """What the model takes of each text, cut to `max_length`, without padding and mask."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_attention_mask=False)
        return {name: encoded[name] for name in self.names}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`input_ids`, and `token_type_ids` where they are not all 0, which models take for granted."""
        return (IDS, TYPES) if any(self.tokenizer("a b").get(TYPES, [0])) else (IDS,)

    @property
    def key(self) -> str:
        """The same for tokenizers that give the same tokens."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = self.tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
        # these follow from the last call
        content = json.dumps(content | {"truncation": None, "padding": None}, sort_keys=True)
        return hashlib.sha256(f"{type(self.tokenizer).__name__} {self.max_length} {content}".encode()).hexdigest()


class KeptTokens:
    """The tokens of all rows, in memory or in a file that is mapped into it.

    Args:
        columns: name -> lists of integers, one for each row.
    """

    def __init__(self, columns: dict[str, pa.ChunkedArray]) -> None:
        chunks = columns[IDS].chunks
        self.starts = np.cumsum([0, *map(len, chunks)])  # rows before each chunk, and of all
        self.offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self.values = {name: [chunk.values.to_numpy() for chunk in column.chunks] for name, column in columns.items()}
        self.lengths = np.concatenate([np.zeros(0, np.int64), *map(np.diff, self.offsets)])

    def read(self, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Name -> the numbers of each row."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        places = [
            (chunk, self.offsets[chunk][row - self.starts[chunk] :][:2])
            for chunk, row in zip(chunks, rows, strict=True)
        ]
        return {
            name: [values[chunk][start:end] for chunk, (start, end) in places] for name, values in self.values.items()
        }


class ReadTokens:
    """`data.cache: none`: rows are tokenised whenever they are read."""

    lengths = None  # not known

    def __init__(self, split: TextSplit, tokenising: Tokenising) -> None:
        self.split = split
        self.tokenising = tokenising

    def read(self, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Name -> the numbers of each row."""
        tokens = self.tokenising(self.split.select(rows).texts())
        return {name: [np.array(numbers) for numbers in column] for name, column in tokens.items()}


def open_tokens(split: TextSplit, data: DataSettings, tokenising: Tokenising) -> KeptTokens | ReadTokens:
    """The tokens of a split, where `data.cache` has them.

    Raises:
        UserError: they do not fit there.
    """
    if data.cache == "none":
        return ReadTokens(split, tokenising)
    return KeptTokens(_on_disk(split, data, tokenising) if data.cache == "disk" else _in_memory(split, tokenising))


def _in_memory(split: TextSplit, tokenising: Tokenising) -> dict[str, pa.ChunkedArray]:
    found: dict[str, list[pa.Array]] = {name: [] for name in tokenising.names}
    nbytes = 0
    with terminal.bar(len(split), f"tokenising {split.source}", "text") as bar:
        for start in range(0, len(split), _PORTION):
            tokens = tokenising(split.texts(start, min(start + _PORTION, len(split))))
            for name, numbers in tokens.items():
                found[name].append(pa.array(numbers, _LISTS))
                nbytes += found[name][-1].nbytes
            bar.update(len(tokens[IDS]))
            if not fits_in_memory(nbytes):
                raise UserError(
                    f"data.cache: memory holds {format_bytes(nbytes)} of tokens of {split.source}, and the memory is used up. "
                    "Set data.cache: disk, or lower data.max_length."
                )
    return {name: pa.chunked_array(arrays, _LISTS) for name, arrays in found.items()}


def _on_disk(split: TextSplit, data: DataSettings, tokenising: Tokenising) -> dict[str, pa.ChunkedArray]:
    """A file of `datasets`, which is made by the first process that asks for it, and mapped into memory by all."""
    folder = cache_folder(data.cache_dir)
    key = hashlib.sha256(f"{split.fingerprint} {tokenising.key} {datasets.__version__}".encode()).hexdigest()[:24]

    def tokenise(rows: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        return tokenising([joined(parts) for parts in zip(*(rows[name] for name in split.columns), strict=True)])

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            table = split.dataset.map(
                tokenise,
                batched=True,
                remove_columns=split.dataset.column_names,
                features=datasets.Features({name: datasets.List(datasets.Value("int32")) for name in tokenising.names}),
                cache_file_name=str(folder / f"{key}.arrow"),
                new_fingerprint=key,
                desc=f"tokenising {split.source}",
            )
    except OSError as error:
        raise UserError(
            f"data.cache_dir {folder}: {error.strerror or error}. Expected a folder that can be written; name another "
            "one, or set data.cache: memory or none."
        ) from error
    columns = table.with_format("arrow")[:]
    return {name: columns[name] for name in tokenising.names}


_LISTS = pa.list_(pa.int32())


class Padding:
    """Rows of tokens -> tensors of one length, padded on the side and with the token that the tokenizer says."""

    def __init__(self, tokenising: Tokenising) -> None:
        tokenizer = tokenising.tokenizer
        self.max_length = tokenising.max_length
        self.pads_left = tokenizer.padding_side == "left"
        self.values = {IDS: tokenizer.pad_token_id, TYPES: tokenizer.pad_token_type_id, MASK: 0}

    def __call__(self, columns: dict[str, list[np.ndarray]]) -> dict[str, Tensor]:
        """
        Args:
            columns: name -> the numbers of each of B rows, without a mask.
        Returns:
            The same and the mask, (B, L) int64: L is the length of the longest row, rounded up to a multiple of 8.
        """
        columns = {**columns, MASK: [np.ones(len(numbers), dtype=np.int64) for numbers in columns[IDS]]}
        longest = max(map(len, columns[IDS]))
        length = min(-(-longest // MULTIPLE) * MULTIPLE, self.max_length)
        return {name: torch.from_numpy(self._padded(name, numbers, length)) for name, numbers in columns.items()}

    def _padded(self, name: str, numbers: list[np.ndarray], length: int) -> np.ndarray:
        """(B, length) int64."""
        padded = np.full((len(numbers), length), self.values[name], dtype=np.int64)
        for line, row in zip(padded, numbers, strict=True):
            first = length - len(row) if self.pads_left else 0
            line[first : first + len(row)] = row
        return padded


class TextBatches(Dataset):
    """Batches of a split.

    Args:
        split: the split whose labels are read.
        tokens: of its rows, from `open_tokens`.
        tokenising: says on which side, and with what, a row is padded.
    """

    def __init__(self, split: TextSplit, tokens: KeptTokens | ReadTokens, tokenising: Tokenising) -> None:
        self.labels = np.asarray(split.labels, dtype=np.int64)
        self.is_labelled = split.is_labelled
        self.tokens = tokens
        self.padding = Padding(tokenising)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Read a batch.

        Args:
            indices: `epoch * len(self) + row`; plain rows are epoch 0.
        Returns:
            rows and, where the split has them, labels (B,) int64; input_ids, attention_mask and, where the model needs them,
            token_type_ids (B, L) int64: L is the length of the longest row, rounded up to a multiple of 8.
        """
        rows = np.asarray(indices, dtype=np.int64) % len(self)
        batch = self.padding(self.tokens.read(rows))
        batch["rows"] = torch.from_numpy(rows)
        if self.is_labelled:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One text, as a batch of one."""
        return self.__getitems__([index])

    def complete(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The part of a batch on the training device that the model takes."""
        return {name: batch[name] for name in (IDS, MASK, TYPES, "labels") if name in batch}

    @property
    def lengths(self) -> np.ndarray | None:
        """(N,) tokens of each row; None: not known."""
        return self.tokens.lengths
