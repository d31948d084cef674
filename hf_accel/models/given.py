"""A model that a Python caller brings -> `LoadedModel`, as `load_model` makes one from a recipe.

Four kinds: a classifier of transformers; one that PEFT has wrapped; a timm network, which becomes the
`TimmWrapperForImageClassification` that loads again without this package; and any other network that returns logits, of
which the tensors are saved and not the architecture.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.bit.image_processing_bit import BitImageProcessor

from hf_accel.config.sections import ModelSettings
from hf_accel.errors import UserError
from hf_accel.inputs.processors import with_image_size
from hf_accel.models.head import known_labels, set_labels
from hf_accel.models.layers import freeze
from hf_accel.models.layout import use_channels_last
from hf_accel.models.load import LoadedModel, freeze_batch_norm
from hf_accel.models.plain import PlainClassifier, PlainConfig, has_batch_dependent_statistics, master_weights
from hf_accel.models.processors import PREPROCESSING_KEYS, default_processor, load_processor, plain, processor_size

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
USUAL_SIDE, SMALL_SIDE, CROPPED = 224, 64, 0.875


def adopt_model(
    model: Any,
    settings: ModelSettings,
    label_names: list[str],
    processor: BaseImageProcessor | None = None,
    image_size: int | None = None,
    usual_side: int | None = None,
) -> LoadedModel:
    """Make a given model ready for training on these labels; it is changed in place.

    Args:
        model: see the module's docstring, or a `LoadedModel`, which is returned as it is.
        settings: the `model:` section of a recipe, of which `channels_last`, `freeze_batch_norm` and `freeze` are followed.
        label_names: one name per class, in the order of the logits.
        processor: the image processor; None: the model's own, and for other networks ImageNet's statistics.
        image_size: side of the square input in pixels; None: the processor's.
        usual_side: the same, for a network whose preprocessing is not known.
    Raises:
        UserError: it is none of these kinds, has another number of classes, or its preprocessing is not known.
    """
    if isinstance(model, LoadedModel):
        return model
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: is of the type {type(model).__name__}, expected a transformers classifier, a timm model, a PEFT model or "
            "another torch.nn.Module that returns logits. For a name or a folder set model.name in the recipe."
        )
    name = describe_model(model)
    notes = [f"model: {name} as given; model.name, pretrained, revision and args of the recipe are not used"]
    notes += master_weights(model)
    classifier, kind_notes = _as_classifier(model, label_names)
    base = base_of(classifier)
    require_classes(name, base.config, label_names)
    processor, processor_notes = _processor_of(base, processor, image_size, usual_side or USUAL_SIDE)
    set_labels(base.config, label_names)
    notes += kind_notes + processor_notes
    if settings.channels_last:
        use_channels_last(classifier)
    if settings.freeze_batch_norm or (base is not classifier and has_batch_dependent_statistics(classifier)):
        notes.append(f"{freeze_batch_norm(classifier)} batch-norm layers keep their statistics")
    if settings.freeze != "none":
        if base is not classifier or isinstance(classifier, PlainClassifier):
            raise UserError(
                f"model.freeze: the layers of {name} are not known here. Leave the setting out, and set requires_grad of the "
                "parameters that stay as they are to False."
            )
        notes.append(freeze(classifier, settings.freeze))
    classifier.train()
    return LoadedModel(classifier, processor, processor_size(processor), notes, is_given=True)


def model_to_predict(
    model: Any, processor: BaseImageProcessor | None = None, label_names: list[str] | None = None
) -> LoadedModel:
    """A given model as it is, for predictions; only its class names are set, where they are given.

    Raises:
        UserError: it is not a model, or its preprocessing is not known.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: is of the type {type(model).__name__}, expected a folder, a Hub id, a trainer or a torch.nn.Module"
        )
    base = base_of(model)
    if not isinstance(base, PreTrainedModel):
        names = label_names or [str(number) for number in range(getattr(model, "num_classes", None) or 0)]
        model, _ = _as_classifier(model, names)
        base = model
    if isinstance(base, PlainClassifier) and processor is None:
        raise UserError(
            "processor: is not given, and a network of your own does not say its preprocessing. Give processor=, or predict with "
            "the trainer."
        )
    processor, _ = _processor_of(base, processor, None, USUAL_SIDE)
    return LoadedModel(model, processor, processor_size(processor))


def describe_model(model: nn.Module) -> str:
    """The class of a given model, for messages and reports."""
    base = base_of(model)
    name = type(base).__name__
    return name if base is model else f"{name} with {type(model).__name__}"


def base_of(model: nn.Module) -> Any:
    """The model inside a PEFT model, or the model itself."""
    return model.get_base_model() if is_peft(model) else model  # type: ignore[operator]


def is_peft(model: nn.Module) -> bool:
    """Whether PEFT wraps this model; PEFT need not be installed."""
    return any(kind.__name__ == "PeftModel" and kind.__module__.startswith("peft.") for kind in type(model).__mro__)


def classes_of_model(model: Any) -> list[str] | None:
    """The names of a model's classes, or None where it has none but LABEL_0, LABEL_1..."""
    config = getattr(base_of(model), "config", None) if isinstance(model, nn.Module) else None
    if not isinstance(config, PreTrainedConfig):
        return None
    names = known_labels(config)
    return None if names == [f"LABEL_{number}" for number in range(len(names))] else names


def _as_classifier(model: Any, label_names: list[str]) -> tuple[Any, list[str]]:
    if isinstance(base_of(model), PreTrainedModel):
        return model, []
    if is_peft(model):
        raise UserError(
            f"model: PEFT wraps {type(base_of(model)).__name__}, expected a transformers classifier inside. "
            'For a timm network wrap AutoModelForImageClassification.from_pretrained("timm/NAME").'
        )
    if getattr(model, "pretrained_cfg", None) and timm.is_model(str(model.pretrained_cfg.get("architecture"))):
        wrapped = _wrapped_timm(model, label_names)
        if wrapped is not None:
            return wrapped, []
    config = PlainConfig()
    set_labels(config, label_names)
    return PlainClassifier(config, model), [
        f"{type(model).__name__}: a saved folder has its weights and class names, and not its architecture"
    ]


def _wrapped_timm(network: Any, label_names: list[str]) -> TimmWrapperForImageClassification | None:
    """The wrapper of transformers around this very network; None: timm would not build it again from its name."""
    if network.num_classes != len(label_names):
        raise _other_classes(type(network).__name__, network.num_classes, label_names, "num_classes")
    architecture = network.pretrained_cfg["architecture"]
    cfg = {key: network.pretrained_cfg[key] for key in PREPROCESSING_KEYS if key in network.pretrained_cfg}
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for arguments in ({}, *_image_sizes(network)):
        config = TimmWrapperConfig(
            architecture=architecture,
            model_args=arguments or None,
            pretrained_cfg=plain(cfg | ({"input_size": [3, *arguments["img_size"]]} if arguments else {})),  # type: ignore[call-arg]  # kept as it is
        )
        set_labels(config, label_names)
        wrapper = TimmWrapperForImageClassification(config)
        if {name: tensor.shape for name, tensor in wrapper.timm_model.state_dict().items()} == shapes:
            wrapper.timm_model = network
            return wrapper
    return None


def _image_sizes(network: Any) -> list[dict[str, Any]]:
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    return [] if size is None else [{"img_size": list(size)}]


def require_classes(name: str, config: PreTrainedConfig, label_names: list[str]) -> None:
    """Raises UserError: a given model has another number of classes than the data."""
    if config.num_labels != len(label_names):
        raise _other_classes(name, config.num_labels, label_names, "num_labels")


def _other_classes(name: str, count: int | None, label_names: list[str], argument: str) -> UserError:
    return UserError(
        f"model: {name} has {count} classes, and the data has {len(label_names)} ({', '.join(label_names[:5])}"
        f"{', …' if len(label_names) > 5 else ''}). Build it with {argument}={len(label_names)}."
    )


def _processor_of(
    model: PreTrainedModel, processor: BaseImageProcessor | None, image_size: int | None, usual_side: int
) -> tuple[BaseImageProcessor, list[str]]:
    if processor is not None and not isinstance(processor, BaseImageProcessor):
        raise UserError(
            f"processor: is of the type {type(processor).__name__}, expected an image processor of transformers, as "
            "AutoImageProcessor.from_pretrained gives it. For a function give train_transform and eval_transform."
        )
    if processor is not None:
        return (processor if image_size is None else with_image_size(processor, image_size)), []
    if isinstance(model, PlainClassifier):
        made = _usual_processor(image_size or usual_side)
        side = processor_size(made)
        return made, [f"no processor is given: images of {side} x {side} pixels with ImageNet's mean and std"]
    config, name = model.config, str(model.config._name_or_path)
    if name or isinstance(config, TimmWrapperConfig):
        try:
            return load_processor(name, None, config, image_size)
        except (OSError, ValueError):
            pass
    if type(config) not in IMAGE_PROCESSOR_MAPPING:
        raise UserError(
            f"model: the preprocessing of {type(model).__name__} is not known. Give its image processor with processor=."
        )
    made = default_processor(config)
    note = f"no processor is given: the default of {config.model_type} is used"
    return (made if image_size is None else with_image_size(made, image_size)), [note]


def _usual_processor(side: int) -> BaseImageProcessor:
    """ImageNet's mean and std; small images are resized whole, because cropping would cut their content."""
    short = side if side <= SMALL_SIDE else round(side / CROPPED)
    return BitImageProcessor(
        size={"shortest_edge": short},
        crop_size={"height": side, "width": side},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
