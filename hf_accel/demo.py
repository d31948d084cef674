"""`hf-accel demo`: a page to drop an image on, here or as a folder ready to be a Space."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
from pathlib import Path

from hf_accel.cli import command_parser, run_and_exit
from hf_accel.errors import UserError

DESCRIPTION = """\
Serve a small web page to drop an image on.

  hf-accel demo outputs/digits/default
  hf-accel demo someone/digits --port 7860
  hf-accel demo outputs/digits/default --space my_space     writes a folder ready to be a Space

Only this machine can reach the page. Needs Gradio: pip install "hf_accel[demo]"."""

ABOUT = """
Drop an image, see its class. Made with `hf-accel demo --space`; upload this folder with

    hf upload OWNER/NAME . --repo-type space
"""
LIBRARIES = ("transformers", "torch", "torchvision", "timm", "pillow")


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("demo", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID", help="folder of a run, of a model, or an id on the Hub")
    parser.add_argument("--port", type=int, help="of the page; default: the first free one from 7860")
    parser.add_argument("--space", type=Path, metavar="FOLDER", help="write a Space there and serve nothing")
    args = parser.parse_args(argv)
    model, title = _find_model(args.model)
    if importlib.util.find_spec("gradio") is None:
        raise UserError('hf-accel demo: needs Gradio, which is not installed. pip install "hf_accel[demo]"')
    if args.space is not None:
        write_space(model, title, args.space)
        print(f"{args.space}: a Space. Try it with: python {args.space / 'app.py'}")
        return 0
    # Gradio reads it on import; no question to a server of its own on each start.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from hf_accel.space_app import CSS, build_page

    build_page(model, title).launch(server_port=args.port, css=CSS)
    return 0


def _find_model(name: str) -> tuple[str, str]:
    """What `from_pretrained` takes for a run's folder, a model's folder or an id on the Hub, and the page's title."""
    folder = Path(name)
    if (folder / "model" / "config.json").is_file():
        from hf_accel.report import RunReport

        return str(folder / "model"), RunReport.load(folder).recipe
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{name}: has no model/config.json, expected the folder of a finished run or of a model")
    if not folder.is_dir() and name.count("/") != 1:
        raise UserError(f"{name}: there is no such folder, and an id on the Hub looks like owner/name")
    return name, folder.resolve().name if folder.is_dir() else name


def write_space(model: str, title: str, space: Path) -> None:
    """Write `app.py`, `requirements.txt`, the Space's card and, of a local model, the weights.

    Raises:
        UserError: `space` holds files already.
    """
    if space.exists() and (not space.is_dir() or any(space.iterdir())):
        raise UserError(f"--space {space}: exists already and is not empty; nothing was written. Name another folder.")
    from huggingface_hub import SpaceCardData

    from hf_accel.card import needs_package
    from hf_accel.publication import MODEL_FILES

    # The page is its own source text, so the Space does what `hf-accel demo` does.
    source = Path(__file__).with_name("space_app.py").read_text(encoding="utf-8")
    source = source.replace('TITLE = "Image classifier"', f"TITLE = {title!r}")
    requirements = [f"{name}=={_release(name)}" for name in LIBRARIES]
    folder = Path(model)
    if folder.is_dir():
        files = (path for pattern in MODEL_FILES for path in folder.glob(pattern))
        for path in (path for path in files if path.suffix not in (".md", ".ipynb")):
            target = space / "model" / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if needs_package(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
            requirements.append(f"hf_accel=={_release('hf_accel')}")
    else:
        source = source.replace('MODEL = "model"', f"MODEL = {model!r}")
        space.mkdir(parents=True, exist_ok=True)
    card = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=_release("gradio"),
        app_file="app.py",
        models=None if folder.is_dir() else [model],
    )
    (space / "app.py").write_text(source, encoding="utf-8")
    (space / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (space / "README.md").write_text(f"---\n{card.to_yaml()}\n---\n{ABOUT}", encoding="utf-8")


def _release(name: str) -> str:
    """The installed version; a local build (2.11.0+cpu) is not on the package index."""
    return importlib.metadata.version(name).partition("+")[0]


if __name__ == "__main__":
    run_and_exit(main)
