"""The demo page: drop an image, see the likeliest classes and the time it took.

`hf-accel demo --space` copies this file as the Space's `app.py`, so it needs only Gradio and transformers, and
this package where the model is one of its own networks. The page itself needs only Gradio: `hf-accel demo` gives it the
answers of an exported model, too.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

MODEL = "model"  # a folder next to this file, or an id on the Hub
TITLE = "Image classifier"
TOP = 5
CLASSES_NAMED = 12
LARGEST_UPLOAD = "20mb"
MOST_PIXELS = 50_000_000  # a PNG of 20 KB can hold 169 megapixels
LONGEST = 16  # long side / short side: enlarged to the model's size, a longer strip would take gigabytes
# What is said of an answer, by what the model has learned about its own.
REMARKS = {
    "unsure": "**Unsure:** answers with such a probability are wrong more often than was asked for.\n\n",
    "unlike": "**Unlike the training images:** this may be none of the classes.\n\n",
}
Answer = Callable[[Image.Image], tuple[Sequence[float], str]]  # scores, and a remark in Markdown
# An image of 32 pixels fills its frame too.
CSS = ".image-frame img { width: 100%; height: 100%; object-fit: contain; }"


def build_page(model_name: str, title: str, explain: Callable[[Image.Image], Any] | None = None) -> gr.Blocks:
    """The page for a model folder or an id on the Hub; `explain` is that of `page_of`."""
    examples = sorted(str(path) for path in (Path(model_name) / "examples").glob("*.png"))
    answer, names, is_multi_label = load_classifier(model_name)
    return page_of(answer, names, title, examples, explain, is_multi_label)


def load_classifier(model_name: str) -> tuple[Answer, list[str], bool]:
    """What answers for an image, the names of the classes, and whether an image has any number of them."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(model_name)
    if config.get("architecture", "").startswith("cifar_") or config.get("model_type") == "hf_accel_encoder":
        import hf_accel.cifar_nets  # noqa: F401  registers the network
    model = AutoModelForImageClassification.from_pretrained(
        model_name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model.eval()
    processor = AutoImageProcessor.from_pretrained(model_name, trust_remote_code=False)
    is_cropped = sees_the_middle(processor)

    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    learned = config.get("hf_accel_confidence") or {}
    thresholds = config.get("hf_accel_thresholds") or [0.5] * len(names)
    is_multi_label = config.get("problem_type") == "multi_label_classification"

    def answer(image: Image.Image) -> tuple[list[float], str]:
        with torch.inference_mode():
            pixels = processor(middle(image) if is_cropped else image, return_tensors="pt")["pixel_values"]
            logits = model(pixel_values=pixels).logits[0].double()
        if is_multi_label:
            scores = logits.sigmoid().tolist()
            return scores, labels_above(thresholds, scores, names)
        probabilities = (logits / learned.get("temperature", 1.0)).softmax(-1)
        spread = float((logits - logits.mean()).norm())
        return probabilities.tolist(), REMARKS.get(verdict_of(learned, spread, float(probabilities.max())), "")

    return answer, names, is_multi_label


def labels_above(thresholds: Sequence[float], scores: Sequence[float], names: Sequence[str]) -> str:
    """Which labels an image has, where they do not exclude each other, as a remark."""
    given = [number for number, score in enumerate(scores) if score >= thresholds[number]]
    ranked = sorted(given, key=lambda number: -scores[number])
    listed = ", ".join(f"{names[number]} {100 * scores[number]:.0f}%" for number in ranked)
    return f"**Labels:** {listed or 'none'}\n\n"


def verdict_of(learned: dict[str, float | None], spread: float, confidence: float) -> str:
    """A key of `REMARKS`, by what the config of the model says about its answers.

    Args:
        spread: the norm of the logits about their mean.
        confidence: the largest probability.
    """
    unlike, unsure = learned.get("unlike_below"), learned.get("unsure_below")
    if unlike is not None and spread < unlike:
        return "unlike"
    return "unsure" if unsure is not None and confidence < unsure else ""


def page_of(
    answer: Answer,
    names: Sequence[str],
    title: str,
    examples: list[str],
    explain: Callable[[Image.Image], Any] | None = None,
    is_multi_label: bool = False,
) -> gr.Blocks:
    """The page for anything that classifies images.

    Args:
        answer: an upright RGB image -> the probabilities of the classes, in their order, and a remark in Markdown.
        examples: files of images to choose from.
        explain: an upright RGB image -> a picture of what speaks for its class; None: the page offers none.
        is_multi_label: the remark says which labels an image has; the likeliest one is not its class.
    """
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow refuses twice this number, and warns of what `read_image` refuses
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

    def classify(path: str | None) -> tuple[dict[str, float] | None, str]:
        """Confidence of the likeliest classes, and how long they took."""
        if path is None:
            return None, ""
        start = time.perf_counter()
        scores, remark = answer(read_image(path))
        seconds = time.perf_counter() - start
        likely = sorted(range(len(scores)), key=lambda number: -scores[number])[:TOP]
        confidences = {names[number]: float(scores[number]) for number in likely}
        return confidences, f"{remark}{1000 * seconds:.0f} ms for this image on this machine"

    named = ", ".join(names[:CLASSES_NAMED]) + (" …" if len(names) > CLASSES_NAMED else "")
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        what = "labels" if is_multi_label else "classes"
        gr.Markdown(f"# {title}\n\n{len(names)} {what}: {named}")
        with gr.Row():
            image = gr.Image(type="filepath", image_mode=None, label="Image", height=320)
            with gr.Column():
                heading = "Highest scores" if is_multi_label else "Class"
                label = gr.Label(num_top_classes=TOP, label=heading, show_heading=not is_multi_label)
                note = gr.Markdown()
        image.change(classify, image, [label, note], api_name="classify")
        if explain is not None:
            why = gr.Button("What speaks for this class?")
            places = gr.Image(label="The image as the model sees it; bright places speak for the class", height=320)
            why.click(lambda path: path and explain(read_image(path)), image, places, api_name="explain")
        if examples:
            gr.Examples(examples, image, label="Test images")
    return page


def read_image(path: str) -> Image.Image:
    """An uploaded image, upright, in RGB.

    Raises:
        gr.Error: it is not an image, or has too many pixels, of which none is decoded then.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise gr.Error(
                    f"The image has {image.width} x {image.height} pixels, expected at most {MOST_PIXELS // 1_000_000} million"
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise gr.Error(f"The file cannot be read as an image: {error}") from error


def middle(image: Image.Image) -> Image.Image:
    """The image without the ends of a strip that no centre crop shows.

    What is cut is a multiple of the short side, so that the rest is resized as it would be within the whole.
    """
    short, long = sorted(image.size)
    spare = max(0, (long - LONGEST * short) // (2 * short)) * short
    across, down = (spare, 0) if image.width == long else (0, spare)
    return image.crop((across, down, image.width - across, image.height - down)) if spare else image


def sees_the_middle(processor: Any) -> bool:
    """Whether a model is shown the middle of a strip alone, and not all of it in its own shape."""
    import torch

    black = Image.new("RGB", (4 * LONGEST * 8, 8))
    with_white_ends = black.copy()
    end = black.width // 4
    for left in (0, black.width - end):
        with_white_ends.paste((255, 255, 255), (left, 0, left + end, 8))
    made = [processor(image, return_tensors="pt")["pixel_values"] for image in (black, with_white_ends)]
    return made[0].shape == made[1].shape and torch.equal(*made)


if __name__ == "__main__":
    folder = Path(__file__).parent / MODEL
    build_page(str(folder) if folder.is_dir() else MODEL, TITLE).launch(
        css=CSS, max_file_size=LARGEST_UPLOAD, show_error=True
    )
