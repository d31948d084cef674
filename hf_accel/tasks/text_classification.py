"""Text classification: from a recipe to batches of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TextIO

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from hf_accel.config.domains import TEXT
from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes
from hf_accel.data.given_texts import given_text_split, given_text_splits
from hf_accel.data.scored_rows import ScoredRows
from hf_accel.data.splits import Splits
from hf_accel.data.text import TextSplit, load_text_split, load_text_splits
from hf_accel.data.text_files import TextList, TextSource, find_texts, listed_texts, single_texts
from hf_accel.errors import UserError
from hf_accel.formatting import format_count
from hf_accel.inputs.prepared import OwnTransforms
from hf_accel.inputs.text import IDS, MASK, MULTIPLE, TYPES, TextBatches, Tokenising, open_tokens
from hf_accel.models.confidence import softmax
from hf_accel.models.given_text import adopt_text_model, text_model_to_predict
from hf_accel.models.text import LoadedText, load_text_model, load_trained_text, text_flops
from hf_accel.tasks.gallery import Example, answered_examples
from hf_accel.tasks.task import ClassificationTask
from hf_accel.tasks.text_reference import Reference, tfidf_reference
from hf_accel.tasks.text_scoring import ScoredText, TextScorer, score_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments


class TextClassification(ClassificationTask):
    """Everything that is particular to texts, for code that is not."""

    name: ClassVar[str] = TEXT
    auto_model = AutoModelForSequenceClassification
    has_text: ClassVar[bool] = True  # in a row of predictions
    unit: ClassVar[str] = "text"
    named_by: ClassVar[str] = "one text per line"
    reading_settings: ClassVar[tuple[str, ...]] = ("text_column",)
    scoring_settings: ClassVar[tuple[str, ...]] = ()

    def open_splits(self, settings: DataSettings, seed: int, selection: bool = True) -> Splits[TextSplit]:
        """The rows that train, select and score; see `load_text_splits`."""
        return load_text_splits(settings, seed, selection)

    def open_split(self, settings: DataSettings, role: str) -> ScoredRows:
        """All rows of one split of data that is scored and not trained on; see `load_text_split`."""
        return load_text_split(settings, role)

    def load_model(self, recipe: Recipe, label_names: list[str]) -> LoadedText:
        """The recipe's model with a head for these labels; see `models.text.load_text_model`."""
        return load_text_model(recipe.model, label_names, recipe.data.max_length)

    def load_trained(self, name: str | Path, revision: str | None = None, setting: str = "model.name") -> LoadedText:
        """A fine-tuned folder or Hub model as it is; see `models.text.load_trained_text`."""
        return load_trained_text(name, revision, setting)

    def given_splits(self, given: Any, settings: DataSettings, seed: int, classes: Classes) -> Splits[TextSplit]:
        """The same of rows that a Python caller brings; see `data.given_texts.given_text_splits`."""
        return given_text_splits(given, settings, seed, classes)

    def adopt_model(
        self,
        model: Any,
        recipe: Recipe,
        splits: Splits[TextSplit],
        processor: PreTrainedTokenizerBase | None,
        own: OwnTransforms,
    ) -> LoadedText:
        """A model that a Python caller brings; see `models.given_text.adopt_text_model`."""
        return adopt_text_model(model, recipe.model, splits.label_names, processor, recipe.data.max_length)

    def own_transforms(self, train: Any, evaluation: Any) -> OwnTransforms:
        """No transforms; raises UserError where a Python caller brings some."""
        if train is not None or evaluation is not None:
            raise UserError(
                "build_trainer: train_transform and eval_transform are of images, and model.task is text-classification. Change "
                "the texts before you give them."
            )
        return OwnTransforms()

    def training_inputs(
        self,
        recipe: Recipe,
        splits: Splits[TextSplit],
        loaded: LoadedText,
        args: TrainingArguments,
        own: OwnTransforms | None = None,
    ) -> TextInputs:
        """What the batches of a training run are made of; nothing is tokenised yet.

        Raises:
            UserError: the model cannot take texts of `data.max_length` tokens.
        """
        inputs = self.scoring_inputs(recipe, loaded, args)
        inputs.flops = text_flops(
            loaded.model, lambda length: inputs.texts_of(loaded.model, 1, length), loaded.max_length
        )
        return inputs

    def scoring_inputs(self, recipe: Recipe, loaded: LoadedText, args: TrainingArguments) -> TextInputs:
        """What the batches of an evaluation are made of."""
        length = recipe.data.max_length or loaded.max_length
        return TextInputs(recipe, Tokenising(loaded.processor, length), args, loaded.label_names)

    def augmented_images(self, *args: Any) -> NoReturn:
        """Raises UserError: texts are not augmented."""
        raise UserError("--augmented: shows augmented images, and model.task is text-classification. Leave it out.")

    def collate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`data_collator`: `TextBatches.__getitems__` returns whole batches, so there is nothing to collate."""
        return batch

    def size_of_row(self, loaded: LoadedText) -> str:
        """The size of a row as the model takes it, in words."""
        return f"at most {format_count(loaded.max_length)} tokens"

    def examples(
        self, split: TextSplit, model: PreTrainedModel, processor: PreTrainedTokenizerBase
    ) -> Iterator[Example]:
        """A few rows with the model's answers, read one by one."""
        scorer = TextScorer(LoadedText(model.eval(), processor, processor.model_max_length))
        return answered_examples(split, lambda text: softmax(scorer.score([text])[0]))

    def find_sources(self, names: list[str], text_column: str | list[str] | None = None) -> TextList:
        """The texts that words of a command line stand for; see `data.text_files.find_texts`."""
        return find_texts(names, text_column)

    def listed_sources(self, stream: TextIO) -> Iterator[TextSource]:
        """One text per line, read as they come."""
        return listed_texts(stream)

    def place_of(self, source: TextSource) -> dict[str, Any]:
        """What tells a text from the others in a file of predictions."""
        return {"row": source.row, "file": source.file, "text": source.text}

    def score_sources(
        self, loaded: LoadedText, sources: Iterable[TextSource], batch_size: int = 32, bf16: bool = False
    ) -> Iterator[ScoredText]:
        """The logits of the classes, text by text; see `tasks.text_scoring.score_texts`."""
        return score_texts(TextScorer(loaded, bf16), sources, batch_size)

    def given_items(self, given: Any) -> Iterator[TextSource]:
        """The texts that a Python caller gives; see `data.text_files.single_texts`."""
        return single_texts(given)

    def row_to_predict(self, item: TextSource, place: int) -> str:
        """Such a text as a row for a Trainer; raises UnusableTextError where there is none."""
        return item.require_text()

    def source_to_score(self, item: TextSource, place: int) -> TextSource:
        """Such a text for `score_sources`."""
        return item

    def named(self, item: TextSource) -> dict[str, Any]:
        """What a `Prediction` says of such a text."""
        return {"file": item.file, "text": item.text}

    def model_to_predict(self, model: Any, processor: Any, label_names: list[str] | None) -> LoadedText:
        """A given model as it is; see `models.given_text.text_model_to_predict`."""
        return text_model_to_predict(model, processor)

    def reference(self, splits: Splits[TextSplit]) -> Reference:
        """The scores of a plain method on the same rows; see `tasks.text_reference`."""
        return tfidf_reference(splits)


@dataclass
class TextInputs:
    """From the rows of a run to the batches that its Trainer reads.

    Args:
        flops: tokens of a text -> operations of a forward pass; evaluation has none.
    """

    recipe: Recipe
    tokenising: Tokenising
    args: TrainingArguments
    label_names: list[str]
    flops: Callable[[int], int] | None = None
    notes: list[str] = field(default_factory=list)  # what a report says of this path
    own: ClassVar[OwnTransforms] = OwnTransforms()
    why_no_features: ClassVar[str | None] = "the texts of a batch are padded to the longest of them"

    def train_batches(self, split: TextSplit) -> TextBatches:
        """The dataset that training reads; opens its tokens.

        Raises:
            UserError: the tokens do not fit where `data.cache` has them.
        """
        batches, longest = self.scored_batches(split), self.tokenising.max_length
        note = f"texts: at most {format_count(longest)} tokens"
        if batches.lengths is not None:
            cut = format_count(int((batches.lengths == longest).sum()))
            note += f" ({cut} of the {format_count(len(split))} training texts have as many or more, and are cut)"
        self.notes.append(note)
        return batches

    def scored_batches(self, split: TextSplit) -> TextBatches:
        """The dataset that an evaluation reads; raises as `train_batches` does."""
        return TextBatches(split, open_tokens(split, self.recipe.data, self.tokenising), self.tokenising)

    def read_rows(self, given: Any) -> TextBatches:
        """The dataset that an evaluation reads of rows that a caller brings, with labels or without.

        Raises:
            UserError: rows that cannot be understood, or a label that the model does not know.
        """
        return self.scored_batches(given_text_split(given, self.recipe.data, self.label_names))

    def train_transform(self) -> None:
        """Nothing is done to a batch on the device."""

    def eval_transform(self) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        return _unchanged

    def scoring_model(self) -> None:
        """The model itself is scored."""

    def teacher_view(self, teacher: LoadedText) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        """The arguments of this run's model -> those of a teacher, which are the same tokens.

        Raises:
            UserError: its tokenizer gives others, or it cannot take as many.
        """
        own, length = self.tokenising, self.tokenising.max_length
        other = Tokenising(teacher.processor, length)
        where = f"{self.recipe.name}: model.teacher is {self.recipe.model.teacher}, which"
        if other.key != own.key or other.tokenizer.padding_side != own.tokenizer.padding_side:
            raise UserError(
                f"{where} has another tokenizer than the model that is trained. Expected a teacher with the same tokenizer: the "
                "teacher reads the tokens of its student."
            )
        positions = getattr(teacher.model.config, "max_position_embeddings", None) or length
        if 0 < positions < length:
            raise UserError(
                f"{where} takes {positions} tokens. Set data.max_length to at most as many; it is {length}."
            )
        return lambda inputs: {name: inputs[name] for name in (IDS, MASK, TYPES) if name in inputs}

    def flops_of_row(self, batch: dict[str, Any]) -> int:
        """Floating-point operations of a forward pass of one text of this batch, its padding included."""
        assert self.flops is not None, "an evaluation does not ask"
        return self.flops(batch[IDS].shape[1] if IDS in batch else self.tokenising.max_length)

    def example(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Arguments of a forward pass of one text of the greatest length, on the model's device."""
        return self.texts_of(model, 1, self.tokenising.max_length)

    def smallest_batch(self, model: PreTrainedModel, rows: int) -> dict[str, Tensor]:
        """Arguments of a forward pass of so many short texts."""
        return self.texts_of(model, rows, min(MULTIPLE, self.tokenising.max_length))

    def texts_of(self, model: PreTrainedModel, rows: int, length: int) -> dict[str, Tensor]:
        """Arguments of a forward pass: texts of one token, which is not that of padding."""
        token = 1 if self.tokenising.tokenizer.pad_token_id == 0 else 0
        ids = torch.full((rows, length), token, device=model.device)
        return {IDS: ids, MASK: torch.ones_like(ids)}


def _unchanged(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch
