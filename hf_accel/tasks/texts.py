"""The words that depend on the task; imports no torch, because `hf-accel push` needs none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskTexts:
    """
    Attributes:
        unit: what a row is.
        other_data: a name for data of the reader's own.
        local_data: the type of a folder of data, in the metadata of a card.
        rate: the unit of the speed of training, in tables.
        rate_name: the same in words.
        train_accuracy: what the accuracy on the training rows is of, in a remark.
        sample: something to classify: the name of a file, or a text.
        usage: Markdown below the call of the pipeline; MODEL stands for the name of the model.
        predicts: what `hf-accel predict` is for.
        notebook: the template of the notebook, in `hub/templates/`.
        app: the module of `hub/` that is the demo page, and the `app.py` of a Space.
        app_needs: the packages that it imports, Gradio left out.
        app_does: what a visitor of the page does.
    """

    unit: str
    other_data: str
    local_data: str
    rate: str
    rate_name: str
    train_accuracy: str
    sample: str
    usage: str
    predicts: str
    notebook: str
    app: str
    app_needs: tuple[str, ...]
    app_does: str


TEXTS = {
    "image-classification": TaskTexts(
        unit="image",
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
    ),
    "text-classification": TaskTexts(
        unit="text",
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
