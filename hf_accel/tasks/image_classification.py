"""Image classification: from a recipe to batches of images, and from image files to the probabilities of classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import numpy as np
from torch import Tensor
from transformers import AutoModelForImageClassification

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.domains import IMAGE
from hf_accel.config.recipe import Recipe
from hf_accel.config.sections import DataSettings
from hf_accel.data.given import Classes, given_splits
from hf_accel.data.images import MAX_PIXELS
from hf_accel.data.listing import listed_images, load_images
from hf_accel.data.scored_rows import ScoredRows, load_split
from hf_accel.data.splits import ImageSplit, Splits, load_splits
from hf_accel.errors import UserError
from hf_accel.inputs.prepared import OwnTransform, OwnTransforms, prepared_shape
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.processors import channels_of, with_channels
from hf_accel.inputs.resize_modes import with_resize
from hf_accel.models.given import adopt_model, base_of, model_to_predict
from hf_accel.models.head import known_labels
from hf_accel.models.load import LoadedModel, load_model, load_model_processor, load_trained
from hf_accel.models.processors import processor_size, set_resize
from hf_accel.models.thresholds import set_multi_label
from hf_accel.models.trial import flops_per_image
from hf_accel.tasks.augmented_images import augmented_images
from hf_accel.tasks.explanations import Explainer
from hf_accel.tasks.gallery import Example, GalleryItem, answered_examples, sample_rows
from hf_accel.tasks.given_images import picture_of, single_images
from hf_accel.tasks.image_inputs import ImageInputs
from hf_accel.tasks.image_scoring import ImageSource, ScoredImage, score_images
from hf_accel.tasks.task import ClassificationTask
from hf_accel.tasks.torch_scoring import TorchScorer, processed_probabilities
from hf_accel.transforms.contact_sheet import AugmentedImage
from hf_accel.transforms.progressive_resizing import training_sides

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments
    from transformers.image_processing_utils import BaseImageProcessor

MOST_AS_TRAINED = 16  # images on the page of a run


class ImageClassification(ClassificationTask):
    """Everything that is particular to images, for code that is not."""

    name: ClassVar[str] = IMAGE
    is_multi_label: ClassVar[bool] = False
    inputs: ClassVar[type[ImageInputs]] = ImageInputs
    auto_model = AutoModelForImageClassification
    has_text: ClassVar[bool] = False  # in a row of predictions
    unit: ClassVar[str] = "image"
    named_by: ClassVar[str] = "one file, folder, glob or URL per line"  # a list on standard input
    reading_settings: ClassVar[tuple[str, ...]] = ()  # of `hf-accel predict`, for `find_sources`
    scoring_settings: ClassVar[tuple[str, ...]] = ("test_time_augmentation", "max_pixels")  # for `score_sources`

    def open_splits(self, settings: DataSettings, seed: int, selection: bool = True) -> Splits:
        """The rows that train, select and score; see `load_splits`."""
        return load_splits(settings, seed, selection)

    def open_split(self, settings: DataSettings, role: str) -> ScoredRows:
        """All rows of one split of data that is scored and not trained on; see `load_split`."""
        return load_split(settings, role)

    def given_splits(self, given: Any, settings: DataSettings, seed: int, classes: Classes) -> Splits:
        """The same of rows that a Python caller brings; see `given_splits`."""
        return given_splits(given, settings, seed, classes)

    def load_model(self, recipe: Recipe, label_names: list[str]) -> LoadedModel:
        """The recipe's model with a head for these labels; see `models.load.load_model`."""
        data = recipe.data
        loaded = load_model(recipe.model, label_names, data.image_size, data.channels)
        set_multi_label(loaded.model.config, self.is_multi_label)
        return set_resize(loaded, data.resize)

    def own_transforms(self, train: OwnTransform | None, evaluation: OwnTransform | None) -> OwnTransforms:
        """The transforms that a Python caller brings, each of one image; see `inputs.prepared.PreparedBatches`."""
        return OwnTransforms(train, evaluation)

    def adopt_model(
        self, model: Any, recipe: Recipe, splits: Splits, processor: BaseImageProcessor | None, own: OwnTransforms
    ) -> LoadedModel:
        """A model that a Python caller brings; see `models.given.adopt_model`."""
        shape = prepared_shape(splits.train, own.train)
        if recipe.data.channels is not None:
            raise UserError(
                "data.channels: a model that is given has its own number of channels. Leave data.channels out."
            )
        side, usual_side = recipe.data.image_size, None if shape is None else shape[1]
        adopted = adopt_model(model, recipe.model, splits.label_names, processor, side, usual_side)
        set_multi_label(base_of(adopted.model).config, self.is_multi_label)
        return set_resize(adopted, recipe.data.resize)

    def load_trained(self, name: str | Path, revision: str | None = None, setting: str = "model.name") -> LoadedModel:
        """A fine-tuned folder or Hub model as it is; see `models.load.load_trained`."""
        return load_trained(name, revision, setting)

    def training_inputs(
        self,
        recipe: Recipe,
        splits: Splits,
        loaded: LoadedModel,
        args: TrainingArguments,
        own: OwnTransforms | None = None,
    ) -> ImageInputs:
        """What the batches of a training run are made of; nothing is decoded yet.

        Args:
            own: the caller's transforms in place of ours.

        Raises:
            UserError: the model cannot take images of a size that the recipe asks for, or a setting that needs our transforms.
        """
        own = own or OwnTransforms()
        shape = prepared_shape(splits.train, own.train)
        is_prepared = own.train is not None or splits.train.is_prepared
        if is_prepared:
            refuse_with_own_transforms(recipe)
        if shape is not None and recipe.model.teacher is not None:
            raise UserError(
                f"{recipe.name}: model.teacher sees the images of the student with a normalisation of its own, and that of the "
                "given tensors is not known. Let the train_transform, or the data set, give images; or leave the teacher out."
            )
        preprocessing = Preprocessing.of(loaded.processor)
        sides = None
        if recipe.data.progressive_resizing is not None:  # first: it refuses a model that is not square as what it is
            num_rows = recipe.data.rows_of_epoch(len(splits.train))
            sides = training_sides(recipe.data.progressive_resizing, preprocessing, args, num_rows)
        shape = shape or (preprocessing.channels, preprocessing.height, preprocessing.width)
        flops = {loaded.image_size: flops_per_image(loaded.model, shape[1:], channels=shape[0])}
        if sides is not None:
            setting = "data.progressive_resizing"
            flops |= {side: flops_per_image(loaded.model, side, setting, shape[0]) for side in sides.first_epochs()}
        return self.inputs(
            recipe, preprocessing, args, splits.label_names, loaded.image_size, flops, sides, own, shape, is_prepared
        )

    def scoring_inputs(self, recipe: Recipe, loaded: LoadedModel, args: TrainingArguments) -> ImageInputs:
        """What the batches of an evaluation are made of, at `data.image_size` where it is not the model's own.

        Raises:
            UserError: the model or its processor cannot take images of this size.
        """
        side = recipe.data.image_size or loaded.image_size
        processor = with_resize(loaded.processor, recipe.data.resize)
        preprocessing = Preprocessing.of(processor, recipe.data.image_size)
        if side != loaded.image_size:
            flops_per_image(loaded.model, side, channels=preprocessing.channels)
        return self.inputs(recipe, preprocessing, args, known_labels(loaded.model.config), side)

    def augmented_images(
        self, recipe: Recipe, splits: Splits, seed: int, num_rows: int, num_epochs: int
    ) -> tuple[list[AugmentedImage], list[str]]:
        """Rows of the training split as the first epochs of a run see them, and notes; the model's weights are not needed.

        Raises:
            UserError: the model's processor cannot be had, or an image is unreadable.
        """
        processor, notes = load_model_processor(recipe.model, recipe.data.image_size)
        return self._augmented(recipe, splits, processor, seed, num_rows, num_epochs), notes

    def _augmented(
        self, recipe: Recipe, splits: Splits, processor: BaseImageProcessor, seed: int, num_rows: int, num_epochs: int
    ) -> list[AugmentedImage]:
        from transformers import TrainingArguments

        processor = with_resize(processor, recipe.data.resize)
        preprocessing = Preprocessing.of(with_channels(processor, recipe.data.channels or channels_of(processor)))
        args = TrainingArguments(seed=seed, use_cpu=True)
        inputs = ImageInputs(recipe, preprocessing, args, splits.label_names, preprocessing.height)
        rows = np.array(sample_rows(splits.train, num_rows, seed))
        return augmented_images(inputs, splits.train, rows, num_epochs)

    def collate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`data_collator`: `ImageBatches.__getitems__` returns whole batches, so there is nothing to collate."""
        return batch

    def size_of_row(self, loaded: LoadedModel) -> str:
        """The size of a row as the model takes it, in words."""
        return f"{loaded.image_size} x {loaded.image_size} pixels"

    def given_items(self, given: Any) -> Iterator[Any]:
        """Each of the images that a Python caller gives alone; see `tasks.given_images.single_images`."""
        return single_images(given)

    def row_to_predict(self, item: Any, place: int) -> Any:
        """Such an image as a row for a Trainer."""
        return item if isinstance(item, Path) else picture_of(item, place)

    def source_to_score(self, item: Any, place: int) -> ImageSource:
        """Such an image for `score_sources`."""
        return item if isinstance(item, Path | bytes | str) else picture_of(item, place)

    def named(self, item: Any) -> dict[str, Any]:
        """What a `Prediction` says of such an image."""
        return {"file": str(item) if isinstance(item, Path | str) else None}

    def model_to_predict(self, model: Any, processor: Any, label_names: list[str] | None) -> LoadedModel:
        """A given model as it is; see `models.given.model_to_predict`."""
        return model_to_predict(model, processor, label_names)

    def reference(self, splits: Splits) -> None:
        """No plain method stands next to the network."""

    def explained(
        self, items: list[GalleryItem], model: PreTrainedModel, processor: BaseImageProcessor
    ) -> list[GalleryItem]:
        """The same mistakes, each with a picture of what speaks for the predicted class."""
        explainer = Explainer(LoadedModel(model, processor, processor_size(processor)))
        numbers = {name: number for number, name in enumerate(known_labels(model.config))}
        return [
            replace(item, explanation=explainer.picture(item.content, numbers[item.predicted or item.label]))
            for item in items
        ]

    def as_trained(self, recipe: Recipe, splits: Splits, processor: BaseImageProcessor) -> list[GalleryItem]:
        """Some training rows as the first epoch sees them; none where nothing changes them, or of a stream."""
        if recipe.data.augment == AugmentSettings() or splits.train.is_streamed:
            return []
        seed = int(recipe.training.get("seed", 42))
        images = self._augmented(recipe, splits, processor, seed, MOST_AS_TRAINED, 1)
        return [GalleryItem(image.samples[0], image.sample_labels[0]) for image in images]

    def examples(self, split: ImageSplit, model: PreTrainedModel, processor: BaseImageProcessor) -> Iterator[Example]:
        """A few rows with the model's answers, read one by one."""
        split = replace(split, channels=channels_of(processor))
        return answered_examples(split, processed_probabilities(model, processor))

    def find_sources(self, names: list[str]) -> list[Path | str]:
        """The images that files, folders, globs and URLs stand for; see `load_images`."""
        return load_images(names)

    def listed_sources(self, stream: TextIO) -> Iterator[Path | str]:
        """The same for a list with one name per line, read as it comes; see `listed_images`."""
        return listed_images(stream)

    def place_of(self, source: Path | str) -> dict[str, Any]:
        """What tells an image from the others in a file of predictions."""
        return {"file": str(source)}

    def score_sources(
        self,
        loaded: LoadedModel,
        sources: Iterable[ImageSource],
        batch_size: int = 32,
        test_time_augmentation: str = "none",
        max_pixels: int | None = MAX_PIXELS,
        bf16: bool = False,
    ) -> Iterator[ScoredImage]:
        """The logits of the classes, image by image; see `tasks.image_scoring.score_images`."""
        return score_images(TorchScorer(loaded, test_time_augmentation, bf16), sources, batch_size, max_pixels)


def refuse_with_own_transforms(recipe: Recipe) -> None:
    """Refuse the settings that act on pixels which the caller's own transform, or data set, replaces.

    Raises:
        UserError: progressive resizing, or whitening of the stem.
    """
    for setting, value in (
        ("data.progressive_resizing", recipe.data.progressive_resizing),
        ("model.whiten_stem", recipe.model.whiten_stem or None),
    ):
        if value is not None:
            raise UserError(
                f"{recipe.name}: {setting} acts on the images of this package's own pipeline, which a train_transform, or "
                "rows that are tensors, replace. Leave one of the two out."
            )
