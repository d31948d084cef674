"""`hf-accel compress`: a trained model as ONNX files, checked against it on the images of its run."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hf_accel.cli import command_parser, parse_with_overrides, print_result, quick_imports, run_and_exit
from hf_accel.compression.packages import refuse_missing_packages
from hf_accel.config.compression_settings import FORMATS, CompressionSettings
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.config.schema import expected, known_settings, schema_of
from hf_accel.errors import UserError
from hf_accel.formatting import format_count
from hf_accel.runs.folder import IN_USE, RunFolder
from hf_accel.runs.lock import sole_use
from hf_accel.runs.named_model import model_place
from hf_accel.runs.output_place import writable_place

DESCRIPTION = """\
Export a trained model to ONNX, check that it gives the same answers, and measure each file.

  hf-accel compress outputs/digits/default
  hf-accel compress outputs/digits/default --formats int8 fp16
  hf-accel compress someone/a-model --data.name ./photos --output_dir exported
  hf-accel predict outputs/digits/default/exported photo.jpg       without PyTorch

The folder has the layout of transformers.js and optimum: onnx/model.onnx, config.json, preprocessor_config.json. The file
itself says which classes it knows and how images are prepared. Needs onnxruntime and onnx: pip install "hf_accel[onnx]"."""

LEAST_ZEROS = 0.05  # share of the weights from which zeros are mentioned


def main(argv: list[str] | None = None) -> int:
    parser = command_parser("compress", DESCRIPTION)
    parser.add_argument("model", metavar="FOLDER_OR_ID", help="the folder of a run or of a model, or an id on the Hub")
    parser.add_argument("--output_dir", type=Path, help="default: exported in the folder of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote")
    add_settings(parser)
    args, flags = parse_with_overrides(parser, argv, check=overrides_from_flags)
    settings = settings_of(args)
    refuse_missing_packages("hf-accel compress")
    output, run = output_folder(args), RunFolder.meant_by(args.model)
    recipe = data_recipe(args.model, overrides_from_flags(flags))

    with quick_imports():
        from hf_accel.compression.compress import compress
        from hf_accel.runs.log import quiet_libraries

    quiet_libraries()
    if run is None or output != run.exported:
        result = compress(recipe, settings, output)
    else:
        with sole_use(run.path, IN_USE), run.additions():
            result = compress(recipe, settings, output)
    print_result(args, result, summary(result), str(output))
    return 0


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags of `CompressionSettings`; those that are not given keep its defaults."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    formats = f"files next to the float32 one: {', '.join(FORMATS)}"
    add("--formats", nargs="+", choices=FORMATS, metavar="FORMAT", help=formats)
    add("--max_drop", type=float, metavar="SHARE", help="accuracy that a file may lose; default 0.01")
    add("--images", type=int, metavar="N", help="images that are compared, test images first; default 1000")
    add("--calibration_images", type=int, metavar="N", help="training images for the ranges of int8; default 512")
    add("--keep", action="store_true", help="write files that are slower or lose more, too")


def settings_of(args: argparse.Namespace) -> CompressionSettings:
    """Raises:
    UserError: a value that a setting cannot have.
    """
    known = known_settings(schema_of(CompressionSettings))
    try:
        return CompressionSettings(**{name: getattr(args, name) for name in known if hasattr(args, name)})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise UserError(f"--{name} is {getattr(args, name)}, expected {expected(known[name])}") from None


def output_folder(args: argparse.Namespace) -> Path:
    """Raises:
    UserError: none is given and the model is not of a run, or it holds other files.
    """
    from hf_accel.models.exported import RESULT

    run = RunFolder.meant_by(args.model)
    if args.output_dir is None and run is None:
        raise UserError(f"{args.model}: is not a folder of a run. Add --output_dir FOLDER.")
    output: Path = args.output_dir if run is None or args.output_dir is not None else run.exported
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
        raise UserError(
            f"{model}: was trained for {recipe.model.task}, and only models for image-classification are exported."
        )
    return recipe


def summary(result: dict[str, Any]) -> str:
    from hf_accel.compression.rows import Row, remarks, render

    agreement, measured = result["agreement"], result["measured"]
    rows = [Row(**row) for row in result["rows"]]
    same = f"{agreement['same_answers']:.2%} of {format_count(agreement['images'])} images get the same class"
    logits = (
        f"largest difference of a logit {agreement['largest_difference']:.2g}, of logits up to "
        f"{agreement['largest_logit']:.3g}"
    )
    passes = min(row.latency_passes for row in rows)
    how = (
        f"accuracy and F1 of {format_count(result['test_images'])} test images; p50 and p99 of one image ({passes} passes or "
        f"more), images/s in batches of {measured['batch_size']}; {measured['rounds']} rounds in turns, threads: "
        f"{measured['threads']}"
    )
    zeros = [f"{result['zero_weights']:.1%} of the weights are zero"] if result["zero_weights"] > LEAST_ZEROS else []
    same_model = f"ONNX fp32 and PyTorch: {same}; {logits}"
    notes = [f"note: {note}" for note in result["notes"]]
    steps = ["next:", f"  hf-accel predict {result['output']} photo.jpg"]
    return "\n".join([render(rows), "", how, same_model, *zeros, *remarks(rows), *notes, "", *steps])


if __name__ == "__main__":
    run_and_exit(main)
