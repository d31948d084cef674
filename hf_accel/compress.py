"""`hf-accel compress`: a trained model as an ONNX file, checked against it on the images of its run."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_accel import terminal
from hf_accel.cli import command_parser, parse_with_overrides, print_result, quick_imports, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.errors import UserError
from hf_accel.formatting import format_count
from hf_accel.runs.folder import IN_USE, RunFolder, model_place, writable_place
from hf_accel.runs.lock import sole_use

if TYPE_CHECKING:
    import numpy as np

    from hf_accel.data.splits import Splits
    from hf_accel.models.load import LoadedModel

DESCRIPTION = """\
Export a trained model to ONNX, and check that it gives the same answers.

  hf-accel compress outputs/digits/default
  hf-accel compress someone/a-model --data.name ./photos --output_dir exported
  hf-accel predict outputs/digits/default/exported photo.jpg       without PyTorch

The folder has the layout of transformers.js and optimum: onnx/model.onnx, config.json, preprocessor_config.json. The file
itself says which classes it knows and how images are prepared. Needs onnxruntime and onnx: pip install "hf_accel[onnx]"."""
RESULT = "compress.json"  # says that this command wrote a folder
SEED = 42  # of TrainingArguments
NEEDED = ("onnx", "onnxruntime", "onnxscript")


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("compress", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID", help="the folder of a run or of a model, or an id on the Hub")
    parser.add_argument("--output_dir", type=Path, help="default: exported in the folder of the run")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="images that are compared; default 1000")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote")
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    if args.images < 1:
        raise UserError(f"--images is {args.images}, expected at least 1")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f'hf-accel compress: {missing[0]} is not installed. pip install "hf_accel[onnx]"')
    output, run = output_folder(args), RunFolder.meant_by(args.model)
    recipe = data_recipe(args.model, overrides_from_flags(flags))
    if run is None or output != run.exported:
        result = compress(recipe, args, output)
    else:
        with sole_use(run.path, IN_USE), run.additions():
            result = compress(recipe, args, output)
    print_result(args, result, summary(result), str(output))
    return 0


def output_folder(args: argparse.Namespace) -> Path:
    """Raises:
    UserError: none is given and the model is not of a run, or it holds other files.
    """
    run = RunFolder.meant_by(args.model)
    if args.output_dir is None and run is None:
        raise UserError(f"{args.model}: is not a folder of a run. Add --output_dir FOLDER.")
    output = args.output_dir if run is None or args.output_dir is not None else run.exported
    writable_place(output)
    if output.is_dir() and any(output.iterdir()):
        if not (output / RESULT).is_file():
            raise UserError(f"--output_dir {output}: holds files that this command did not write. Name another folder.")
        if not args.overwrite:
            raise UserError(
                f"{output}: holds an exported model, which is kept. Add --overwrite, or --output_dir FOLDER."
            )
    return output


def data_recipe(model: str, overrides: dict[str, Any]) -> Recipe:
    """A recipe whose data are the images that are compared: of the run, or those that are named.

    Raises:
        UserError: no data is named and there is no run that knows it, or the run is of texts.
    """
    run = RunFolder.meant_by(model)
    if run is None and not overrides.get("data", {}).get("name"):
        raise UserError(f"{model}: is not a folder of a run, so its data is unknown. Add --data.name FOLDER_OR_ID.")
    model_settings = {**overrides.get("model", {}), "name": model_place(model)}
    recipe = load_recipe("finetune" if run is None else run.recipe, overrides={**overrides, "model": model_settings})
    if recipe.model.task != "image-classification":
        raise UserError(f"{model}: was trained for {recipe.model.task}, and only classifiers of images are exported.")
    return recipe


def compress(recipe: Recipe, args: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Export, compare, and put the folder in its place; returns what `compress.json` holds.

    Raises:
        UserError: the model or the data cannot be had, or the model cannot be exported.
        RunError: the exported model gives other answers.
    """
    with quick_imports():
        from hf_accel.compression import export
        from hf_accel.machine.allocator import apply_keep_freed_memory
        from hf_accel.machine.description import describe_environment
        from hf_accel.methods.finite import refuse_broken_weights
        from hf_accel.models.exported import EXPORTED_MODEL, Exported
        from hf_accel.runs.log import quiet_libraries
        from hf_accel.tasks import TASKS

    quiet_libraries()
    apply_keep_freed_memory(True)
    task = TASKS[recipe.model.task]
    splits = task.open_splits(recipe.data, int(recipe.training.get("seed", SEED)))
    loaded: LoadedModel = task.load_trained(recipe.model.name, recipe.model.revision)
    refuse_broken_weights(loaded.model, recipe.model.name)
    preprocessing, notes = export.recorded_preprocessing(loaded)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        folder = Path(scratch) / output.name
        file = export.write_onnx(loaded, preprocessing, folder)
        with terminal.bar(None, "compared", "image") as bar:
            agreement = export.compare(
                loaded, Exported(file), counted(itertools.islice(images_of(splits), args.images), bar)
            )
        export.require_agreement(args.model, agreement)
        export.write_configuration(loaded, preprocessing, folder)
        result = {
            "model": recipe.model.name,
            "model_content": loaded.content(),
            "output": str(output),
            "file": str(output / EXPORTED_MODEL),
            "bytes": file.stat().st_size,
            "data": recipe.data.name,
            "agreement": agreement.to_dict(),
            "notes": [*loaded.notes, *notes],
            "environment": describe_environment(),
        }
        (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if output.is_dir():
            shutil.rmtree(output)
        folder.replace(output)
    return result


def images_of(splits: Splits) -> Iterator[np.ndarray]:
    """The images of the data, test rows first, (H, W, 3) uint8 RGB each."""
    for split in (splits.test, splits.validation, splits.train):
        if split is not None:
            yield from (split.read(row) for row in range(len(split)))


def counted(images: Iterator[np.ndarray], bar: Any) -> Iterator[np.ndarray]:
    for image in images:
        bar.update()
        yield image


def summary(result: dict[str, Any]) -> str:
    agreement = result["agreement"]
    same = f"{agreement['same_answers']:.2%} of {format_count(agreement['images'])} images get the same class"
    logits = (
        f"largest difference of a logit {agreement['largest_difference']:.2g}, of logits up to "
        f"{agreement['largest_logit']:.3g}"
    )
    notes = [f"note: {note}" for note in result["notes"]]
    size = f"{result['file']}: {result['bytes'] / 2**20:.1f} MiB, float32"
    steps = ["", "next:", f"  hf-accel predict {result['output']} photo.jpg"]
    return "\n".join([size, f"{same}; {logits}", *notes, *steps])


if __name__ == "__main__":
    run_and_exit(main)
