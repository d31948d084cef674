"""A tiny data set of texts, tiny text models with a tokenizer of words, and a recipe that trains them in a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    XLNetConfig,
)

from hf_accel.config.recipe import Recipe
from tests.support.tiny_recipes import tiny_recipe_of

GOOD, BAD = ("good", "fine", "great", "love"), ("bad", "poor", "broken", "hate")
WORDS = ("<unk>", "<pad>", "<s>", "</s>", "<cls>", "<sep>", *GOOD, *BAD, "it", "is", "the", "a", "and", "thing")
LABELS = ["negative", "positive"]


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts of 2 to 20 words, one of which tells the label; no two are equal."""
    rng, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        label = LABELS[len(found) % 2]
        filling = rng.choices(WORDS[-6:], k=rng.randint(1, 19))
        filling.insert(rng.randint(0, len(filling)), rng.choice(GOOD if label == "positive" else BAD))
        found.setdefault(" ".join(filling), label)
    return [{"text": text, "label": label} for text, label in found.items()]


def write_csv(path: Path, table: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def write_reviews(folder: Path, train: int = 24, test: int = 8) -> Path:
    """A folder with train.csv and test.csv."""
    table = rows(train + test)
    write_csv(folder / "train.csv", table[:train])
    write_csv(folder / "test.csv", table[train:])
    return folder


def word_tokenizer(side: str = "right", **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of `WORDS`."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = special or {"unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=side, **special)


CONFIGS: dict[str, PreTrainedConfig] = {
    "xlnet": XLNetConfig(vocab_size=len(WORDS), d_model=16, n_layer=2, n_head=2, d_inner=16, pad_token_id=1),
    "bert": BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=16, max_position_embeddings=32, pad_token_id=1),
    "gpt2": GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=3, bos_token_id=2),
}  # fmt: skip


def save_text_model(folder: Path, kind: str = "xlnet", labels: list[str] | None = None) -> Path:
    """A classifier that differs from zero in every tensor, with its tokenizer; GPT-2's has no padding token."""
    config = CONFIGS[kind]
    if labels is not None:
        config = type(config).from_dict({**config.to_dict(), "id2label": dict(enumerate(labels))})
    model = AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.save_pretrained(folder)
    special = {"unk_token": "<unk>", "eos_token": "</s>"} if kind == "gpt2" else {}
    word_tokenizer("left" if kind == "xlnet" else "right", **special).save_pretrained(folder)
    return folder


def text_recipe(place: Path, *patches: dict[str, Any], kind: str = "xlnet") -> Recipe:
    """A recipe on `write_reviews` with a model of `save_text_model`, both made in `place` where they are missing."""
    data, model = place / "reviews", place / kind
    if not data.is_dir():
        write_reviews(data)
    if not model.is_dir():
        save_text_model(model, kind)
    settings = {"name": str(model), "task": "text-classification"}
    return tiny_recipe_of(place, settings, {"name": str(data)}, *patches)
