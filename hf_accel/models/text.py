"""Any text classifier of the Hub with its tokenizer, ready to be trained for the labels at hand.

As `load.py` does for images: a new classifier (its layers are named), float32 master weights, label names. The tokenizer
gets a padding token where it has none (GPT-2, Llama), and keeps the length to which texts were cut. Code from a repository is
never run, and no pickle is opened.

XLNet is padded on the left, because it classifies by its last token. It returns the hidden states of all layers as memory for
a next part of the text in evaluation (`use_mems_eval`), which nobody reads here: the setting is switched off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.inputs.text import Tokenising
from hf_accel.models.encoder import pretrained
from hf_accel.models.head import head_tensors, known_labels, set_labels
from hf_accel.models.layers import freeze
from hf_accel.models.load import checked_name, update_config
from hf_accel.models.load_errors import load_errors
from hf_accel.models.loaded import Loaded
from hf_accel.models.trial import counted_flops, forward_once
from hf_accel.models.weights import quiet_loading_report, with_fitting_head

MOST_TOKENS = 512  # of a text, unless the recipe says more
_errors = partial(load_errors, kind="text classifier", processor="tokenizer")


@dataclass
class LoadedText(Loaded):
    """A classifier of texts with its tokenizer and what was done to it, in words."""

    model: PreTrainedModel
    processor: PreTrainedTokenizerBase
    max_length: int  # tokens of a text, the special ones included
    notes: list[str] = field(default_factory=list)
    has_new_head: bool = False  # on pretrained weights
    is_given: bool = False

    def preprocessing(self) -> str:
        return Tokenising(self.processor, self.max_length).key


def load_text_model(settings: ModelSettings, label_names: list[str], max_length: int | None = None) -> LoadedText:
    """Load or build a classifier for these labels.

    Args:
        settings: the `model:` section of a recipe.
        label_names: one name per class, in the order of the label numbers.
        max_length: tokens to which a text is cut; None: as many as the model takes, at most 512.
    Raises:
        UserError: no such model, not a text classifier, no tokenizer, or no weights that can be loaded.
    """
    name, revision = checked_name(settings.name), settings.revision
    with _errors("model.name", name):
        own = _load_config(name, revision, "model.name")
        tokenizer, notes = _load_tokenizer(name, revision, own)
        known = known_labels(own)
        set_labels(own, label_names)
        own.problem_type = "single_label_classification"
        config = copy.deepcopy(own)
        update_config(config, settings.args)
        if settings.pretrained:
            model, has_new_head, notes_of_weights = _with_weights(name, revision, config, known)
        else:
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)
            has_new_head, notes_of_weights = False, [f"{config.model_type} from random weights"]
    _require_vocabulary(name, model, tokenizer)
    if settings.freeze != "none":
        notes.append(freeze(model, settings.freeze))
    tokenizer.model_max_length = max_length or longest_text(tokenizer, config)
    model.train()
    return LoadedText(model, tokenizer, tokenizer.model_max_length, [*notes_of_weights, *notes], has_new_head)


def load_trained_text(name: str | Path, revision: str | None = None, setting: str = "model.name") -> LoadedText:
    """Load a fine-tuned folder or Hub model as it is, head and labels included.

    Raises:
        UserError: no such model, not a text classifier, no tokenizer, or no weights that can be loaded.
    """
    name = str(name)
    with _errors(setting, name):
        config = _load_config(name, revision, setting)
        tokenizer, notes = _load_tokenizer(name, revision, config)
        with quiet_loading_report():
            model, fresh, _ = pretrained(AutoModelForSequenceClassification, name, revision, config)
    if fresh:
        raise UserError(
            f"{setting}: {name} has no weights for {min(fresh)}, so it is not a classifier that was trained. Expected the folder "
            "of a run, or a model that was fine-tuned to classify texts."
        )
    return LoadedText(model.eval(), tokenizer, usual_length(tokenizer, config), notes)


def usual_length(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    """Tokens to which a text is cut for a model that is trained: those of its training, where this package trained it."""
    own = tokenizer.model_max_length
    return own if own < VERY_LARGE_INTEGER else longest_text(tokenizer, config)


def longest_text(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    """Tokens that the tokenizer and the model allow, at most 512: XLNet's allow any number."""
    positions = getattr(config, "max_position_embeddings", None) or -1  # XLNet's is -1
    return min(tokenizer.model_max_length, positions if positions > 0 else MOST_TOKENS, MOST_TOKENS)


def text_flops(
    model: PreTrainedModel, example: Callable[[int], dict[str, Tensor]], max_length: int
) -> Callable[[int], int]:
    """Length of a text in tokens -> floating-point operations of one forward pass, a multiply-add counted as two.

    They are counted at three lengths, through which a parabola goes: attention costs the square of the length, the rest is
    proportional to it.

    Args:
        example: number of tokens -> arguments of a forward pass of one text.
    Raises:
        UserError: the model cannot process a text of `max_length` tokens, or does not answer with one logit per class.
    """
    lengths = sorted({max_length, -(-max_length // 2), -(-max_length // 4)})
    counts = {length: _flops(model, example(length), length) for length in reversed(lengths)}

    def flops(length: int) -> int:
        if length in counts or len(lengths) < 3:
            return counts.get(length, counts[max_length])
        total = 0.0
        for one in lengths:
            share = 1.0
            for other in lengths:
                share *= 1.0 if other == one else (length - other) / (one - other)
            total += share * counts[one]
        return round(total)

    return flops


def _flops(model: PreTrainedModel, inputs: dict[str, Tensor], length: int) -> int:
    try:
        with counted_flops() as counter:
            logits = forward_once(model, inputs)
    except Exception as error:  # whatever it is, training would meet it too
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"data.max_length: {type(model).__name__} cannot process a text of {length} tokens ({reason}). Set a smaller one, or "
            "choose another model."
        ) from error
    if logits.shape != (1, model.config.num_labels):
        raise UserError(
            f"model.name: {type(model).__name__} answers a text with {list(logits.shape[1:])} numbers, expected one for each of "
            f"the {model.config.num_labels} classes. Choose another model."
        )
    return counter.get_total_flops()


def _load_config(name: str, revision: str | None, setting: str) -> Any:
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"{setting}: {name} is of the type {config.model_type}, which has no classifier of texts. Expected a model such as "
            "xlnet/xlnet-base-cased or distilbert/distilbert-base-uncased."
        )
    return without_memory(config)


def _load_tokenizer(name: str, revision: str | None, config: Any) -> tuple[Any, list[str]]:
    """The tokenizer, with a padding token that the config knows, too; and what had to be chosen, in words."""
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    # upstream makes an empty one where there is none
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"model.name: {name} has no tokenizer: expected files such as tokenizer.json or vocab.txt next to its config.json. "
            "Add those of the model that it was made from."
        )
    return padded_tokenizer(tokenizer, config, name)


def padded_tokenizer(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str
) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer with a padding token that the config knows, too.

    Args:
        name: of the model, for messages.
    Returns:
        The tokenizer, and what had to be chosen, in words.
    Raises:
        UserError: there is no token that can be used.
    """
    notes = []
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"model.name: the tokenizer of {name} has neither a padding token nor one for the end of a text."
            )
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(f"the tokenizer has no padding token: {tokenizer.eos_token} is used")
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, notes


def without_memory(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same config, in which XLNet returns no hidden states for a next part of the text."""
    if hasattr(config, "use_mems_eval"):
        config.use_mems_eval = False
    return config


def _with_weights(
    name: str, revision: str | None, config: PreTrainedConfig, known: list[str]
) -> tuple[PreTrainedModel, bool, list[str]]:
    with quiet_loading_report():
        model, fresh, mismatched = pretrained(AutoModelForSequenceClassification, name, revision, config)
    broken = mismatched - head_tensors(model)
    if broken:
        raise UserError(
            f"model.name: {min(broken)} has another shape in the weights of {name} than its config.json and model.args say. Only "
            "the classifier may differ: leave these arguments out, or set model.pretrained: false."
        )
    is_new, notes = with_fitting_head(name, model, fresh, known)
    return model, is_new, [f"weights of {name}, trained in float32", *notes]


def _require_vocabulary(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = len(embeddings.weight)
    if len(tokenizer) > rows:
        raise UserError(
            f"model.name: the tokenizer of {name} has {len(tokenizer):,} tokens and the model {rows:,} embeddings. Expected as "
            "many embeddings as tokens: leave model.args.vocab_size out."
        )
