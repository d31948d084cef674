"""The words that depend on the task; imports no torch, because `hf-accel push` needs none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hf_accel.errors import UserError


@dataclass(frozen=True)
class Measure:
    """A figure of a split.

    Attributes:
        key: in `Scores`.
        name: in a sentence or a list.
        heading: of a column.
        remark: below the figure on a page; "": how far it may be off by chance, because it is a share of right answers.
        hub: the Hub's name for it.
    """

    key: str
    name: str
    heading: str
    remark: str
    hub: str

    @property
    def short(self) -> str:
        """Its name at the beginning of a line."""
        return self.heading if self.heading.startswith("F1") else self.heading[0].lower() + self.heading[1:]


@dataclass(frozen=True)
class ScoreTexts:
    """Which figures are shown; the loss is shown with all of them.

    Attributes:
        measures: of a split, the main one first.
        headlines: those of them in the table that a run prints and on top of its page.
        columns: those in the table of the page.
        of_class: (key in `per_class`, heading) of the figures of a class; the number of its rows is shown with them.
    """

    measures: tuple[Measure, ...]
    headlines: tuple[Measure, ...]
    columns: tuple[Measure, ...]
    of_class: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TaskTexts:
    """
    Attributes:
        unit: what a row is.
        answers: what a model does with it, after its name.
        explains: whether it can be shown which places of an image speak for its class.
        is_audited: whether `hf-accel audit` judges its labels.
        pipeline: the pipeline of transformers.
        scores: which figures of a split are shown.
        other_data: a name for data of the reader's own.
        local_data: the type of a folder of data, in the metadata of a card.
        rate: the unit of the speed of training, in tables.
        rate_name: the same in words.
        train_accuracy: what the accuracy on the training rows is of, in a remark.
        sample: something to classify: the name of a file, or a text.
        arguments: of the pipeline's call, next to it; {labels} stands for their number.
        usage: Markdown below the call of the pipeline; MODEL stands for the name of the model.
        predicts: what `hf-accel predict` is for.
        notebook: the template of the notebook, in `hub/templates/`.
        app: the module of `hub/` that is the demo page, and the `app.py` of a Space.
        app_needs: the packages that it imports, Gradio left out.
        app_does: what a visitor of the page does.
    """

    unit: str
    answers: str
    explains: bool
    is_audited: bool
    pipeline: str
    scores: ScoreTexts
    other_data: str
    local_data: str
    rate: str
    rate_name: str
    train_accuracy: str
    sample: str
    usage: str
    arguments: str = field(default="", kw_only=True)
    predicts: str
    notebook: str
    app: str
    app_needs: tuple[str, ...]
    app_does: str


ACCURACY = Measure("accuracy", "Accuracy", "Accuracy", "", "accuracy")
F1_MACRO = Measure("f1_macro", "Macro F1", "F1 (macro)", "mean over the classes", "f1")
F1_MICRO = Measure("f1_micro", "Micro F1", "F1 (micro)", "over all labels of all rows", "f1")
F1_WEIGHTED = Measure("f1_weighted", "Weighted F1", "F1 (weighted)", "mean over the rows", "f1")
TOP5 = Measure("top5_accuracy", "Top-5 accuracy", "Top-5", "the class is among five", "accuracy")
MEAN_PRECISION = Measure("mean_average_precision", "mAP", "mAP", "mean average precision over the labels", "mAP")
EXACT = Measure("accuracy", "Exact match", "Exact match", "", "accuracy")
ONE_CLASS = ScoreTexts(
    measures=(ACCURACY, F1_MACRO, F1_MICRO, F1_WEIGHTED, TOP5),
    headlines=(ACCURACY, F1_MACRO, TOP5),
    columns=(ACCURACY, F1_MACRO, F1_WEIGHTED, TOP5),
    of_class=(("precision", "precision"), ("recall", "recall"), ("f1", "F1")),
)
ANY_LABELS = ScoreTexts(
    measures=(MEAN_PRECISION, F1_MACRO, F1_MICRO, F1_WEIGHTED, EXACT),
    headlines=(MEAN_PRECISION, F1_MACRO, F1_MICRO, EXACT),
    columns=(MEAN_PRECISION, F1_MACRO, F1_MICRO, F1_WEIGHTED, EXACT),
    of_class=(("average_precision", "AP"), *ONE_CLASS.of_class, ("threshold", "threshold")),
)
IMAGES = TaskTexts(
    unit="image",
    answers="classifies images",
    explains=True,
    is_audited=True,
    pipeline="image-classification",
    scores=ONE_CLASS,
    other_data="./other_photos",
    local_data="imagefolder",
    rate="images/s",
    rate_name="Images per second",
    train_accuracy="Train accuracy is that of the augmented training images of the last epoch, while the network learned: "
    "with strong augmentation it is below the test accuracy, and the gap is negative.",
    sample="photo.jpg",
    usage="[notebook.ipynb](notebook.ipynb) loads the model, predicts, repeats the evaluation and continues the training. "
    "`hf-accel demo MODEL` opens a page to drop images on.",
    predicts="classify images: files, folders or globs",
    notebook="image_notebook.py.jinja",
    app="space_app",
    app_needs=("transformers", "torch", "torchvision", "timm", "pillow"),
    app_does="Drop an image, see its class.",
)
TEXTS = {
    "image-classification": IMAGES,
    "multi-label-image-classification": replace(
        IMAGES,
        answers="gives an image any number of labels",
        explains=False,
        is_audited=False,
        scores=ANY_LABELS,
        train_accuracy="Accuracy is the share of the images of which every label is right. Train accuracy is that of the "
        "augmented training images of the last epoch, at the threshold 0.5, while the network learned.",
        arguments=", top_k={labels}",
        usage="The pipeline gives all labels their scores, which are sigmoids. An image has the labels whose scores "
        "reach their thresholds: `hf_accel_thresholds` in config.json, in the order of the labels, else 0.5. `hf-accel predict` "
        "and `hf-accel demo MODEL` apply them. [notebook.ipynb](notebook.ipynb) loads the model, predicts, repeats the "
        "evaluation and continues the training.",
        predicts="label images: files, folders or globs",
        app_does="Drop an image, see its labels.",
    ),
    "text-classification": TaskTexts(
        unit="text",
        answers="classifies texts",
        explains=False,
        is_audited=False,
        pipeline="text-classification",
        scores=ONE_CLASS,
        other_data="./other_texts",
        local_data="text",
        rate="samples/s",
        rate_name="Samples per second",
        train_accuracy="Train accuracy is that of the training texts of the last epoch, while the network learned with dropout.",
        sample="It works, and it was cheap.",
        usage="A text that is longer than the model's input is cut: add `truncation=True`. [notebook.ipynb](notebook.ipynb) "
        "loads the model, predicts, repeats the evaluation and continues the training. `hf-accel demo MODEL` opens a page to "
        "enter texts.",
        predicts="classify texts, or files of texts",
        notebook="text_notebook.py.jinja",
        app="text_space_app",
        app_needs=("transformers", "torch"),
        app_does="Enter a text, see its class.",
    ),
}  # by `model.task` of a recipe


def refuse_to_explain_task(task: str, name: str) -> None:
    """Raises UserError: there is no picture of what speaks for an answer of this task.

    Args:
        name: of the model, or its folder.
    """
    if not TEXTS[task].explains:
        raise UserError(
            f"--explain: shows places of an image that speak for its one class, and {name} {TEXTS[task].answers}. Leave it out."
        )
