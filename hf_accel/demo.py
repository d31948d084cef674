"""`hf-accel demo`: a page that classifies an image or a text, here or as a folder ready to be a Space."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hf_accel.cli import command_parser, print_result, run_and_exit
from hf_accel.errors import UserError
from hf_accel.hub.space import write_space
from hf_accel.models.exported import exported_file, exported_folder
from hf_accel.report.run_report import RunReport
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.named_model import model_place
from hf_accel.tasks.texts import TEXTS, refuse_to_explain_task

if TYPE_CHECKING:
    import numpy as np
    from gradio import Blocks
    from PIL.Image import Image

DESCRIPTION = """\
Serve a small web page to drop an image on; of a text classifier, to enter texts.

  hf-accel demo outputs/digits/default
  hf-accel demo someone/digits --port 7860
  hf-accel demo outputs/digits/default/exported             without PyTorch; or exported/onnx/FILE.onnx
  hf-accel demo outputs/digits/default --explain            with a button: what speaks for the class?
  hf-accel demo outputs/digits/default --space my_space     writes a folder ready to be a Space

Only this machine can reach the page. Needs Gradio: pip install "hf_accel[demo]"."""

IMAGES = "image-classification"  # the task of every exported model
# Others decide where Gradio listens, which files of this machine it serves, and whether it shares the page: a variable that
# was set for another program must not open this one.
KEPT_VARIABLES = ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_BLOCKED_PATHS", "GRADIO_SERVER_PORT",
                  "GRADIO_NUM_PORTS", "GRADIO_ANALYTICS_ENABLED")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("demo", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID", help="the folder of a run or a model, or an id on the Hub")
    parser.add_argument("--port", type=int, help="port of the page; default: the first free one from 7860")
    parser.add_argument(
        "--explain", action="store_true", help="offer pictures of what speaks for a class; needs hf_accel[trust]"
    )
    parser.add_argument("--space", type=Path, metavar="FOLDER", help="write a Space there and serve nothing")
    args = parser.parse_args(argv)
    model, title = _find_model(args.model)
    exported = exported_file(model)
    if importlib.util.find_spec("gradio") is None:
        fix = 'pip install "hf_accel[demo]"' if exported is None else "pip install gradio"
        raise UserError(f"hf-accel demo: needs Gradio, which is not installed. {fix}")
    if args.explain:
        _refuse_to_explain(args, model)
    if args.space is not None:
        if exported is not None:
            raise UserError(
                f"--space {args.space}: a Space has the weights for PyTorch, and {args.model} is an exported model. Name the "
                "folder of the run or the model that it was exported from."
            )
        write_space(model, title, args.space, task_of(model))
        command = f"python {shlex.quote(str(args.space / 'app.py'))}"
        document = {"space": str(args.space), "command": command}
        print_result(args, document, f"{args.space}: a Space. Try it with: {command}", str(args.space))
        return 0
    for name in [name for name in os.environ if name.startswith("GRADIO_") and name not in KEPT_VARIABLES]:
        del os.environ[name]
    # Gradio reads it on import, and would otherwise ask its own server at each start.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    task = IMAGES if exported is not None else task_of(model)
    app = import_module(f"hf_accel.hub.{TEXTS[task].app}")
    explain = {"explain": explanation(model)} if args.explain else {}
    page = page_of_model(model, title, app, task, **explain) if exported is None else page_of_exported(model, title)
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=args.port,
        share=False,
        css=app.CSS,
        max_file_size=app.LARGEST_UPLOAD,
        show_error=True,
        quiet=True,
        prevent_thread_lock=True,
    )
    print_result(
        args, {"url": url, "model": model}, f"{title}: {url} (only this machine can reach it; ^C ends it)", url
    )
    with contextlib.redirect_stdout(sys.stderr):  # ^C makes it talk
        page.block_thread()
    return 0


def _refuse_to_explain(args: argparse.Namespace, model: str) -> None:
    if args.space is not None or exported_file(model) is not None:
        raise UserError(
            "--explain: needs PyTorch and this package, which a Space and an exported model do without. Leave it out."
        )
    refuse_to_explain_task(task_of(model), args.model)
    from hf_accel.models.heat_maps import refuse_missing_captum

    refuse_missing_captum("--explain")


def task_of(model: str) -> str:
    from hf_accel.models.kind import task_of_model  # here: --help needs no transformers

    return task_of_model(model)


def page_of_model(
    model: str, title: str, app: ModuleType, task: str, **explain: Callable[[Image], np.ndarray]
) -> Blocks:
    """Args:
        explain: for images, `explain` of `page_of`.
    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """
    from hf_accel.models.load_errors import load_errors

    with load_errors("model.name", model, kind=f"{TEXTS[task].unit} classifier"):
        return app.build_page(model, title, **explain)


def explanation(model: str) -> Callable[[Image], np.ndarray]:
    """An image -> (H, W, 3) uint8 RGB: the same with the places that speak for its likeliest class in bright colours."""
    from hf_accel.models.load import load_trained
    from hf_accel.tasks.explanations import Explainer

    explainer = Explainer(load_trained(model))
    return explainer.picture_of_likeliest


def page_of_exported(place: str, title: str) -> Blocks:
    """The page for an exported folder or file, without PyTorch and transformers."""
    import numpy as np

    from hf_accel.hub.space_app import REMARKS, page_of
    from hf_accel.tasks.exported import ExportedImageClassification

    exported = ExportedImageClassification().load_trained(place)

    def answer(image: Image) -> tuple[list[float], str]:
        (logits,) = exported.score([exported.prepare(np.array(image))])
        found = exported.confidence.answer(logits)
        return found.probabilities.tolist(), REMARKS.get(found.verdict or "", "")

    return page_of(answer, exported.label_names, title, [])


def _find_model(name: str) -> tuple[str, str]:
    """What `from_pretrained` takes for a run's folder, a model's folder or an id on the Hub, or an exported model as it is
    named; and the page's title."""
    place = model_place(name)
    exported = exported_file(place)
    if exported is not None:
        of_run = RunFolder.meant_by(exported_folder(exported))
        if of_run is not None and of_run.is_finished:
            return place, RunReport.load(of_run.path).recipe
        return place, exported_folder(exported).name
    folder, run = Path(name), RunFolder(name)
    if run.model_config.is_file():
        return str(run.model), RunReport.load(folder).recipe
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{name}: has no model/config.json, expected the folder of a finished run or of a model")
    return place, folder.resolve().name if folder.is_dir() else name


if __name__ == "__main__":
    run_and_exit(main)
