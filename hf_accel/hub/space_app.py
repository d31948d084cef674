"""The demo page: drop an image, see the likeliest classes and the time it took.

`hf-accel demo --space` copies this file as the Space's `app.py`, so it needs only Gradio and transformers, and
this package where the model is one of its own networks.
"""

import time
import warnings
from pathlib import Path

import gradio as gr
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

MODEL = "model"  # a folder next to this file, or an id on the Hub
TITLE = "Image classifier"
TOP = 5
CLASSES_NAMED = 12
LARGEST_UPLOAD = "20mb"
MOST_PIXELS = 50_000_000  # a PNG of 20 KB can hold 169 megapixels
LONGEST = 16  # long side / short side: enlarged to the model's size, a longer strip would take gigabytes
# An image of 32 pixels fills its frame too.
CSS = ".image-frame img { width: 100%; height: 100%; object-fit: contain; }"


def build_page(model_name: str, title: str) -> gr.Blocks:
    """The page for a model folder or an id on the Hub."""
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow refuses twice this number, and warns of what `read_image` refuses
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    config, _ = PreTrainedConfig.get_config_dict(model_name)
    if config.get("architecture", "").startswith("cifar_") or config.get("model_type") == "hf_accel_encoder":
        import hf_accel.cifar_nets  # noqa: F401  registers the network
    model = AutoModelForImageClassification.from_pretrained(
        model_name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model.eval()
    processor = AutoImageProcessor.from_pretrained(model_name, trust_remote_code=False)
    names = model.config.id2label
    is_cropped = sees_the_middle(processor)

    def classify(path: str | None) -> tuple[dict[str, float] | None, str]:
        """Confidence of the likeliest classes, and how long they took."""
        if path is None:
            return None, ""
        start = time.perf_counter()
        image = read_image(path)
        with torch.inference_mode():
            pixels = processor(middle(image) if is_cropped else image, return_tensors="pt")["pixel_values"]
            scores = model(pixel_values=pixels).logits[0].softmax(-1)
        seconds = time.perf_counter() - start
        likely = scores.topk(min(TOP, len(scores)))
        confidences = {names[int(i)]: float(s) for s, i in zip(likely.values, likely.indices, strict=True)}
        return confidences, f"{1000 * seconds:.0f} ms for this image on this machine"

    named = ", ".join(list(names.values())[:CLASSES_NAMED]) + (" …" if len(names) > CLASSES_NAMED else "")
    examples = sorted(str(path) for path in (Path(model_name) / "examples").glob("*.png"))
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}\n\n{len(names)} classes: {named}")
        with gr.Row():
            image = gr.Image(type="filepath", image_mode=None, label="Image", height=320)
            with gr.Column():
                label = gr.Label(num_top_classes=TOP, label="Class")
                note = gr.Markdown()
        image.change(classify, image, [label, note], api_name="classify")
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


def sees_the_middle(processor: BaseImageProcessor) -> bool:
    """Whether a model is shown the middle of a strip alone, and not all of it in its own shape."""
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
