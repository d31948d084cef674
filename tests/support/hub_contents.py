"""What the loopback Hub serves, the checkpoints and data sets of the headline commands, and a finished run to push.

The layout (file names, configuration keys, tensor names) is that of the real repositories; the weights are random from a
seed and the data set is a cut of the data folder. A public repository of weights is a download away; a test is not.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.hub_server import HubServer

CARD = "---\nlicense: apache-2.0\nlibrary_name: {library}\npipeline_tag: image-classification\n---\nRandom weights.\n"


def write_vit_base(folder: Path, **config_changes: int) -> Path:
    """google/vit-base-patch16-224-in21k: a ViTModel with pooler, no head and no labels.

    Args:
        config_changes: ViTConfig fields, to make it smaller (`num_hidden_layers=1`).
    """
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**config_changes)).save_pretrained(folder)
    # As the real file is: no image_processor_type, an integer size.
    processor = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text(CARD.format(library="transformers"))
    return folder


def write_timm(folder: Path, name: str) -> Path:
    """timm/<name>, e.g. resnet50.a1_in1k, in timm's Hub format (architecture, num_classes, pretrained_cfg)."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    save_for_hf(timm.create_model(name, pretrained=False), str(folder), safe_serialization=True)
    # The published repositories carry no model_args; with those that a newer timm adds, transformers fails
    # ("got multiple values for keyword argument 'num_classes'").
    config = json.loads((folder / "config.json").read_text())
    config.pop("model_args", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "README.md").write_text(CARD.format(library="timm"))
    return folder


def write_cifar(folder: Path, source: Path, train_rows: int = 200, test_rows: int = 100) -> Path:
    """A data set in the Hub's layout: the first rows of each split of `source` (a folder with data/*.parquet)."""
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for split, rows in (("train", train_rows), ("test", test_rows)):
        first = sorted((source / "data").glob(f"{split}-*.parquet"))[0]
        table = pq.read_table(first).slice(0, rows)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\ntask_categories: [image-classification]\n---\nA cut for tests.\n")
    return folder


def fill_for_headline(
    hub: "HubServer", folder: Path, data: Path, train_rows: int = 200, test_rows: int = 100, **vit_changes: int
) -> None:
    """Serve everything the six recipes of the paper's models download: three checkpoints, CIFAR-10 and CIFAR-100.

    Args:
        folder: where the files are made (an empty temporary folder; 450 MB with the full-size ViT-B/16).
        data: the data folder, with cifar10/ and cifar100/.
        train_rows, test_rows: of each data set.
        vit_changes: ViTConfig fields that make the ViT smaller (`num_hidden_layers=2` saves 290 MB).
    """
    hub.add_model("google/vit-base-patch16-224-in21k", write_vit_base(folder / "vit", **vit_changes))
    for name in ("resnet50.a1_in1k", "efficientnet_b0.ra_in1k"):
        hub.add_model(f"timm/{name}", write_timm(folder / name, name))
    for name in ("cifar10", "cifar100"):
        hub.add_dataset(f"uoft-cs/{name}", write_cifar(folder / name, data / name, train_rows, test_rows))


def write_run(
    folder: Path, *, data_name: str = "uoft-cs/cifar10", model_name: str = "google/vit-tiny", **training: object
) -> Path:
    """A finished run as `hf-accel train` leaves it, with a tiny random ViT and made-up figures."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    from hf_accel.config.recipe import load_recipe
    from hf_accel.report.run_report import DataSummary, DetailedScores, ModelSummary, RunReport, Scores, TrainSummary

    labels = ["cat", "dog", "frog"]
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    ViTForImageClassification(config).save_pretrained(folder / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    overrides = {
        "model": {"name": model_name, "pretrained": True},
        "data": {"name": data_name, "validation": 0.1},
        "training": {"output_dir": str(folder), **training},
    }
    recipe = load_recipe("digits", overrides=overrides)
    recipe.write(folder / "recipe.yaml")
    per_class = [
        {"label": label, "precision": 0.9, "recall": 0.8, "f1": 0.8471, "support": 100} for label in labels
    ]  # fmt: skip
    RunReport(
        recipe=recipe.name,
        variant=recipe.variant,
        settings={"bf16": True, "learning_rate": 3e-3, "max_steps": 30},
        notes=["precision: bf16 (the CPU has avx512_bf16)"],
        environment={"device": "cpu", "cpu": "A CPU", "torch": "2.15.0", "command": "hf-accel train --recipe digits"},
        data=DataSummary(
            name=data_name, fingerprint="f1f2", train_rows=2700, validation_rows=300, test_rows=300, test_split="test",
            labels=labels
        ),
        model=ModelSummary(name=model_name, parameters=24_000, pretrained=True),
        train=TrainSummary(
            steps=30, epochs=1.0, world_size=1, effective_batch_size=64, seconds=12.5, images_per_second=216.0,
            energy_joules=7200.0, final_loss=0.4,
        ),
        validation=Scores(loss=0.5, accuracy=0.81, f1_macro=0.8),
        test=DetailedScores(
            loss=0.52, accuracy=0.8, f1_macro=0.79, f1_micro=0.8, f1_weighted=0.79, per_class=per_class,
            confusion=[[80, 15, 5], [18, 80, 2], [1, 2, 97]],
        ),
    ).save(folder)  # fmt: skip
    return folder
