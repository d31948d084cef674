"""The demo page of a text classifier: enter a text, see the likeliest classes and the time it took.

`hf-accel demo --space` copies this file as the Space's `app.py`, so it needs only Gradio and transformers.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

MODEL = "model"  # a folder next to this file, or an id on the Hub
TITLE = "Text classifier"
TOP = 5
CLASSES_NAMED = 12
LONGEST = 20_000  # characters; a model reads some hundred words
USUAL_LENGTH = 512  # tokens, where neither the tokenizer nor the model says how many it takes
LARGEST_UPLOAD = "1mb"  # a page of texts has no files to upload
CSS = ""


def build_page(model_name: str, title: str) -> gr.Blocks:
    """The page for a model folder or an id on the Hub."""
    likeliest, names = load_classifier(model_name)

    def classify(text: str) -> tuple[dict[str, float] | None, str]:
        """Confidence of the likeliest classes, and how long they took."""
        if not text.strip():
            return None, ""
        start = time.perf_counter()
        answers = likeliest(text)
        seconds = time.perf_counter() - start
        return answers, f"{1000 * seconds:.0f} ms for this text on this machine"

    named = ", ".join(names[:CLASSES_NAMED]) + (" …" if len(names) > CLASSES_NAMED else "")
    examples = [path.read_text(encoding="utf-8") for path in sorted((Path(model_name) / "examples").glob("*.txt"))]
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}\n\n{len(names)} classes: {named}")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=8)
                button = gr.Button("Classify", variant="primary")
            with gr.Column():
                label = gr.Label(num_top_classes=TOP, label="Class")
                note = gr.Markdown()
        gr.on([button.click, text.submit], classify, text, [label, note], api_name="classify")
        if examples:
            gr.Examples([[example] for example in examples], text, label="Test texts")
    return page


def load_classifier(model_name: str) -> tuple[Callable[[str], dict[str, float]], list[str]]:
    """What gives the likeliest classes of a text with their probabilities, and the names of all classes."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(
        model_name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
    longest = tokenizer.model_max_length  # a huge number where it does not say
    if longest > 1_000_000:
        positions = getattr(model.config, "max_position_embeddings", None) or -1  # XLNet's is -1
        longest = min(USUAL_LENGTH, positions) if positions > 0 else USUAL_LENGTH
    classify: Any = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, truncation=True, max_length=longest, top_k=TOP
    )

    def likeliest(text: str) -> dict[str, float]:
        """Raises gr.Error: the text is too long."""
        if len(text) > LONGEST:
            raise gr.Error(f"The text has {len(text):,} characters, expected at most {LONGEST:,}")
        (answers,) = classify([text.strip()])
        return {row["label"]: row["score"] for row in answers}

    return likeliest, [model.config.id2label[number] for number in range(model.config.num_labels)]


if __name__ == "__main__":
    folder = Path(__file__).parent / MODEL
    build_page(str(folder) if folder.is_dir() else MODEL, TITLE).launch(
        css=CSS, max_file_size=LARGEST_UPLOAD, show_error=True
    )
