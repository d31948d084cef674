"""One folder of photographs and one of pretrained weights, in the form that every program reads, and the programs on them.

Each program is a command that evaluates the test photographs after every epoch, as its validation split.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.stopwatch import learning_curve
from benchmarks.timm_script import version_in
from benchmarks.workloads import as_flags

# The line of an evaluation: of hf_accel and the example, of timm (the mean over all batches, at the last one), of AutoTimm.
OURS = r"validation accuracy (?P<accuracy>[\d.]+)"
EXAMPLE = r"'eval_accuracy': '?(?P<accuracy>[\d.]+)"
TIMM = r"Test: \[ *(\d+)/\1\].*Acc@1: *[\d.]+ \( *(?P<accuracy>[\d.]+)\)"
AUTOTIMM = r"val/accuracy (?P<accuracy>[\d.]+)"


def write_photographs(folder: str, photographs: str, network: str) -> dict[str, Any]:
    """Write `data/` and the weights, in a folder of their network's name, below a folder.

    `data/train/` are the train photographs; `data/val/` and `data/test/` are both the test photographs, because every
    program is to evaluate those after each epoch. The weights become float32: stored as float16, the example would train
    in float16.

    Args:
        photographs: a folder with train/ and test/, a folder for each class in both.
        network: a folder with config.json and model.safetensors as timm writes them.
    """
    from safetensors.torch import load_file, save_file

    place = Path(folder)
    for split, rows in (("train", "train"), ("val", "test"), ("test", "test")):
        shutil.copytree(Path(photographs) / rows, place / "data" / split)
    source = Path(network)
    (place / source.name).mkdir()
    shutil.copy(source / "config.json", place / source.name)
    weights = load_file(source / "model.safetensors")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(weights, place / source.name / "model.safetensors", metadata={"format": "pt"})
    return {}


def write_small(folder: str, network: str) -> dict[str, Any]:
    """The same for a rehearsal: a few images of two colours, and a small network with random weights."""
    import numpy as np
    import PIL.Image
    import timm
    from safetensors.torch import save_file

    place = Path(folder)
    for split in ("train", "val", "test"):
        for label, shade in (("dark", 40), ("light", 200)):
            (place / "data" / split / label).mkdir(parents=True)
            for number in range(6):
                noise = np.random.default_rng([number, shade, len(split)]).integers(-30, 30, (40, 40, 3))
                image = PIL.Image.fromarray((shade + noise).astype(np.uint8))
                image.save(place / "data" / split / label / f"{number}.png")
    model = timm.create_model("test_resnet", num_classes=1000)
    (place / network).mkdir()
    save_file(model.state_dict(), place / network / "model.safetensors", metadata={"format": "pt"})
    # the network's own entry would be looked up on the Hub
    entry = {name: value for name, value in model.pretrained_cfg.items() if "hf_hub" not in name and name != "url"}
    config = {"architecture": "test_resnet", "num_classes": 1000, "num_features": model.num_features}
    (place / network / "config.json").write_text(json.dumps({**config, "pretrained_cfg": entry}), "utf-8")
    return {}


def ours(place: str, network: str, seed: int, recipe: str, overrides: dict[str, Any], output: str) -> dict[str, Any]:
    """`hf-accel train` on a recipe."""
    folder = Path(place)
    flags = {"recipe": recipe, "data.name": folder / "data", "model.name": folder / network, "seed": seed,
             "output_dir": output} | as_flags(overrides)  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return learning_curve([sys.executable, "-m", "hf_accel.train", *words], OURS)


def example(place: str, network: str, seed: int, flags: dict[str, Any], output: str) -> dict[str, Any]:
    """The Hugging Face example's script.

    Args:
        flags: TrainingArguments, name for name.
    """
    folder = Path(place)
    given = {"model_name_or_path": folder / network, "dataset_name": folder / "data",
             "cache_dir": Path(output) / "cache", "output_dir": Path(output) / "run", "remove_unused_columns": False,
             "seed": seed, "eval_strategy": "epoch"} | flags  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return learning_curve([sys.executable, "-m", "benchmarks.hf_script", *words], EXAMPLE, folder=REPOSITORY)


def timm(
    place: str, network: str, seed: int, flags: list[str], checkout: str, device: str, output: str
) -> dict[str, Any]:
    """timm's `train.py` with its flags for a fine-tune: the weights as pretrained ones, and a new head.

    Args:
        checkout: folder that holds train.py; its own timm is the one that runs.
        flags: flags besides those of data, weights and seed.
    Returns:
        As `learning_curve`, and the version of timm.
    """
    folder, script = Path(place), Path(checkout).resolve() / "train.py"
    config = json.loads((folder / network / "config.json").read_text("utf-8"))
    entry = config["pretrained_cfg"]
    classes = sum(path.is_dir() for path in (folder / "data" / "train").iterdir())
    command = [
        sys.executable, str(script), "--data-dir", str(folder / "data"), "--train-split", "train", "--val-split", "val",
        "--model", config["architecture"], "--pretrained", "--pretrained-path",
        str(folder / network / "model.safetensors"), "--num-classes", str(classes),
        "--mean", *map(str, entry["mean"]), "--std", *map(str, entry["std"]),
        "--device", device, "--seed", str(seed), "--log-interval", "1000000", "--output", output, *flags,
    ]  # fmt: skip
    return {**learning_curve(command, TIMM, 100.0, folder=output), "version": version_in(script.parent)}


def autotimm(place: str, network: str, seed: int, flags: dict[str, Any], python: str, output: str) -> dict[str, Any]:
    """AutoTimm by its Python interface.

    Args:
        flags: flags of autotimm_script.py besides those of data, weights and seed.
        python: the Python that has AutoTimm installed.
    Returns:
        As `learning_curve`, and the version of AutoTimm.
    """
    folder = Path(place)
    given = {"data": folder / "data", "weights": folder / network / "model.safetensors",
             "config": folder / network / "config.json", "output": output, "seed": seed} | flags  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    curve = learning_curve([python, str(Path(__file__).with_name("autotimm_script.py")), *words], AUTOTIMM)
    asked = [python, "-c", "from importlib.metadata import version; print(version('autotimm'))"]
    return {**curve, "version": subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None}
