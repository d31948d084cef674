"""The demo page: drop an image, see the likeliest classes and the time it took.

`hf-accel demo --space` copies this file as the Space's `app.py`, so it needs only Gradio and transformers, and
this package where the model is one of its own networks.
"""

import time
from pathlib import Path

import gradio as gr
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

MODEL = "model"  # a folder next to this file, or an id on the Hub
TITLE = "Image classifier"
TOP = 5
CLASSES_NAMED = 12
LARGEST_UPLOAD = "20mb"
MOST_PIXELS = 50_000_000  # a PNG of 20 KB can hold 169 megapixels; PIL refuses twice this number
# An image of 32 pixels fills its frame too.
CSS = ".image-frame img { width: 100%; height: 100%; object-fit: contain; }"


def build_page(model_name: str, title: str) -> gr.Blocks:
    """The page for a model folder or an id on the Hub."""
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    config = AutoConfig.from_pretrained(model_name, trust_remote_code=False)
    if config.to_dict().get("architecture", "").startswith("cifar_"):
        import hf_accel.cifar_nets  # noqa: F401  registers the network with timm
    model = AutoModelForImageClassification.from_pretrained(
        model_name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model.eval()
    processor = AutoImageProcessor.from_pretrained(model_name, trust_remote_code=False)
    names = model.config.id2label

    def classify(image: Image.Image | None) -> tuple[dict[str, float] | None, str]:
        """Confidence of the likeliest classes, and how long they took."""
        if image is None:
            return None, ""
        start = time.perf_counter()
        with torch.inference_mode():
            pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
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
            image = gr.Image(type="pil", label="Image", height=320)
            with gr.Column():
                label = gr.Label(num_top_classes=TOP, label="Class")
                note = gr.Markdown()
        image.change(classify, image, [label, note], api_name="classify")
        if examples:
            gr.Examples(examples, image, label="Test images")
    return page


if __name__ == "__main__":
    folder = Path(__file__).parent / MODEL
    build_page(str(folder) if folder.is_dir() else MODEL, TITLE).launch(css=CSS, max_file_size=LARGEST_UPLOAD)
