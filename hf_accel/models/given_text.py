"""A text classifier that a Python caller brings -> `LoadedText`, as `load_text_model` makes one from a recipe."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.models.given import base_of, describe_model, require_classes
from hf_accel.models.head import set_labels
from hf_accel.models.layers import freeze
from hf_accel.models.plain import master_weights
from hf_accel.models.text import LoadedText, longest_text, padded_tokenizer, usual_length, without_memory


def adopt_text_model(
    model: Any,
    settings: ModelSettings,
    label_names: list[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
) -> LoadedText:
    """Make a given model ready for training on these labels; it is changed in place.

    Args:
        model: a classifier of transformers, also one that PEFT wraps; or a `LoadedText`, which is returned as it is.
        settings: the `model:` section of a recipe, of which `freeze` is followed.
        label_names: one name per class, in the order of the logits.
        tokenizer: None: that of the folder or the id on the Hub from which the model was loaded.
        max_length: tokens to which a text is cut; None: as many as the model takes, at most 512.
    Raises:
        UserError: it is not such a model, has another number of classes, or its tokenizer is not known.
    """
    if isinstance(model, LoadedText):
        return model
    base = base_of(model) if isinstance(model, nn.Module) else None
    if not isinstance(base, PreTrainedModel):
        raise UserError(
            f"model: is of the type {type(model).__name__}, expected a text classifier of transformers, as "
            "AutoModelForSequenceClassification gives it, or a PEFT model around one. For a name or a folder set model.name in "
            "the recipe."
        )
    name, config = describe_model(model), without_memory(base.config)
    notes = [f"model: {name} as given; model.name, pretrained, revision and args of the recipe are not used"]
    notes += master_weights(model)
    require_classes(name, config, label_names)
    tokenizer, padding_notes = padded_tokenizer(_tokenizer_of(base, tokenizer), config, name)
    set_labels(config, label_names)
    config.problem_type = "single_label_classification"
    if settings.freeze != "none":
        if base is not model:
            raise UserError(
                f"model.freeze: the layers of {name} are not known here. Leave the setting out, and set requires_grad of the "
                "parameters that stay as they are to False."
            )
        notes.append(freeze(model, settings.freeze))
    tokenizer.model_max_length = max_length or longest_text(tokenizer, config)
    model.train()
    return LoadedText(model, tokenizer, tokenizer.model_max_length, [*notes, *padding_notes], is_given=True)


def text_model_to_predict(model: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> LoadedText:
    """A given classifier as it is, for predictions.

    Raises:
        UserError: its tokenizer is not known.
    """
    base = base_of(model)
    tokenizer, notes = padded_tokenizer(
        _tokenizer_of(base, tokenizer), without_memory(base.config), describe_model(model)
    )
    return LoadedText(model, tokenizer, usual_length(tokenizer, base.config), notes, is_given=True)


def _tokenizer_of(model: PreTrainedModel, tokenizer: Any) -> PreTrainedTokenizerBase:
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    if tokenizer is not None:
        raise UserError(
            f"processor: is of the type {type(tokenizer).__name__}, expected a tokenizer of transformers, as "
            "AutoTokenizer.from_pretrained gives it."
        )
    place = str(model.config._name_or_path)
    try:
        if not place:
            raise ValueError("the model was not loaded from a folder or the Hub")
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model: the tokenizer of {type(model).__name__} is not known. Give it with processor=."
        ) from error
