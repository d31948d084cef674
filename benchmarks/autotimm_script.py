"""AutoTimm from pretrained weights to the accuracy of every epoch, as a command of the Python that has AutoTimm installed.

It imports nothing of this repository. AutoTimm tunes the learning rate and compiles the network by default; both are left
out, because on a CPU they take minutes, and the learning rate is searched from outside, as for the other programs.
"""

import argparse
import json
from pathlib import Path

import autotimm
import pytorch_lightning as pl
from autotimm.core.backbone import BackboneConfig, create_backbone


class PrintAccuracy(pl.Callback):
    """A line per epoch; validation follows the epoch's last step."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            accuracy = float(trainer.callback_metrics["val/accuracy"])
            print(f"epoch {trainer.current_epoch + 1}: val/accuracy {accuracy:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="folder with train/ and val/, a folder for each class in both")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with timm's names")
    parser.add_argument("--config", type=Path, required=True, help="config.json as timm writes it next to the weights")
    parser.add_argument("--output", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    config = json.loads(args.config.read_text("utf-8"))
    # timm's own entry of a network may name another mean than the one that these weights were trained with
    weights = {**config["pretrained_cfg"], "file": str(args.weights)}
    backbone = BackboneConfig(config["architecture"], extra_kwargs={"pretrained_cfg_overlay": weights})
    data = autotimm.ImageDataModule(
        data_dir=args.data,
        batch_size=args.batch,
        num_workers=args.workers,
        persistent_workers=True,
        transform_config=autotimm.TransformConfig(use_timm_config=True),
        backbone=create_backbone(backbone),
    )
    data.setup("fit")
    accuracy = autotimm.MetricConfig(
        name="accuracy",
        backend="torchmetrics",
        metric_class="Accuracy",
        params={"task": "multiclass", "average": "micro"},
        stages=["val"],
    )
    model = autotimm.ImageClassifier(
        backbone=backbone,
        num_classes=data.num_classes,
        metrics=[accuracy],
        lr=args.lr,
        compile_model=False,
        seed=args.seed,
        deterministic=False,
    )
    trainer = autotimm.AutoTrainer(
        max_epochs=args.epochs,
        precision=args.precision,
        tuner_config=False,
        seed=args.seed,
        callbacks=[PrintAccuracy()],
        default_root_dir=args.output,
        enable_progress_bar=False,
    )
    trainer.fit(model, datamodule=data)


if __name__ == "__main__":
    main()
