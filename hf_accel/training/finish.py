"""After the last step: score the splits, save the model, and gather everything into one `RunReport`."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from transformers.trainer_utils import PredictionOutput

from hf_accel.config.recipe import Recipe
from hf_accel.hub.card import write_card
from hf_accel.hub.examples import write_examples
from hf_accel.machine.description import describe_environment
from hf_accel.models.saved import IMAGES_COMPARED, check_saved
from hf_accel.report.gallery import confident_mistakes, data_sample
from hf_accel.report.history import history_from_log
from hf_accel.report.page import write_page
from hf_accel.report.run_report import DataSummary, DetailedScores, ModelSummary, RunReport, Scores, TrainSummary
from hf_accel.training.metrics import classification_metrics, confusion, per_class
from hf_accel.training.trainer import ImageTrainer

logger = logging.getLogger(__name__)


def finish(trainer: ImageTrainer, recipe: Recipe) -> RunReport:
    """Score the test split once, save the model, and write the report; returns the report on every rank."""
    folder = Path(trainer.args.output_dir)
    settings, notes = trainer.arguments.changed, trainer.notes
    if trainer.compile_failure is not None:
        settings = {name: value for name, value in settings.items() if not name.startswith("torch_compile")}
        notes = [*notes, trainer.compile_failure]
    train_accuracy = trainer.train_accuracy()
    train_summary = summarise_training(trainer, train_accuracy)
    predictions = trainer.predict(trainer.test_dataset, metric_key_prefix="test")
    trainer.save_model(str(folder / "model"))
    check_saved_model(trainer, folder / "model")
    report = RunReport(
        recipe=recipe.name,
        variant=recipe.variant,
        settings=settings,
        notes=notes,
        environment=describe_environment(trainer.args.device),
        data=summarise_data(trainer, recipe),
        model=ModelSummary(
            name=recipe.model.name,
            parameters=trainer.loaded.parameters,
            flops_per_image=trainer.flops_per_image,
            pretrained=recipe.model.pretrained,
        ),
        train=train_summary,
        history=history_from_log(trainer.state.log_history),
        validation=validation_scores(trainer),
        test=detailed_scores(predictions, trainer.splits.label_names, "test"),
    )
    if trainer.is_world_process_zero():
        # a pickle with local paths and perhaps a token: nothing in this package reads it
        (folder / "model" / "training_args.bin").unlink(missing_ok=True)
        predictions_file = folder / "predictions.csv"
        write_predictions(predictions_file, predictions)
        test = trainer.splits.test
        write_page(folder, report, confident_mistakes(predictions_file, test), data_sample(trainer.splits.train))
        write_examples(folder, test, trainer.model, trainer.loaded.processor)
        write_card(folder, report)
        report.save(folder)  # last: it is the sign of a finished run
    trainer.accelerator.wait_for_everyone()
    return report


def check_saved_model(trainer: ImageTrainer, folder: Path) -> None:
    """Compare the saved model with the trained one on the first test images, on the rank that saved it."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # no rank holds the whole model
    if trainer.is_world_process_zero() and not sharded:
        test = trainer.test_dataset
        trainer.model.eval()
        batch = trainer._prepare_inputs(test.__getitems__(range(min(IMAGES_COMPARED, len(test)))))
        check_saved(folder, trainer.model, trainer.splits.label_names, batch["pixel_values"])


def summarise_data(trainer: ImageTrainer, recipe: Recipe) -> DataSummary:
    splits = trainer.splits
    return DataSummary(
        name=recipe.data.name,
        fingerprint=splits.fingerprint,
        train_rows=len(splits.train),
        validation_rows=None if splits.validation is None else len(splits.validation),
        test_rows=len(splits.test),
        labels=list(splits.label_names),
        skipped=list(splits.skipped),
    )


def summarise_training(trainer: ImageTrainer, accuracy: float | None) -> TrainSummary:
    """Figures over all ranks: rates, bytes and energy are sums, times and memory are the largest rank's."""
    args, state = trainer.args, trainer.state
    timing, figures = trainer.measurement.summary(), trainer.measurement.resources
    ranks = gather_object([{**timing, **figures}])

    def over_ranks(name: str, combine: Any) -> Any:
        values = [rank[name] for rank in ranks if rank[name] is not None]
        return combine(values) if values else None

    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return TrainSummary(
        steps=state.global_step,
        epochs=state.epoch,
        world_size=args.world_size,
        resumes=trainer.measurement.resumes,
        effective_batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        **{name: over_ranks(name, max) for name in timing if name != "images_per_second"},
        images_per_second=over_ranks("images_per_second", sum),
        **{name: over_ranks(name, max) for name in figures if name.startswith("peak_")},
        **{name: over_ranks(name, sum) for name in figures if not name.startswith("peak_")},
        final_loss=losses[-1] if losses else None,
        accuracy=accuracy,
    )


def validation_scores(trainer: ImageTrainer) -> Scores | None:
    """The validation figures of the model that is kept: the best checkpoint's, or the last ones."""
    entries = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    if not entries:
        return None
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    if best is not None:
        step = int(best.rsplit("-", 1)[1])
        entries = [entry for entry in entries if entry["step"] == step] or entries
    names = ("loss", "accuracy", "top5_accuracy", "f1_macro", "f1_micro", "f1_weighted")
    return Scores(**{name: entries[-1].get(f"eval_{name}") for name in names})


def detailed_scores(predictions: PredictionOutput, label_names: list[str], prefix: str) -> DetailedScores:
    top_ids = predictions.predictions[0]
    labels = predictions.label_ids
    return DetailedScores(
        loss=predictions.metrics.get(f"{prefix}_loss"),
        **classification_metrics(top_ids, labels, len(label_names)),
        per_class=per_class(top_ids[:, 0], labels, label_names),
        confusion=confusion(top_ids[:, 0], labels, len(label_names)),
    )


def write_predictions(path: Path, predictions: PredictionOutput) -> None:
    """row, label, predicted, confidence of every evaluated image, in the order of rows."""
    top_ids, confidence, _, rows = predictions.predictions
    order = np.argsort(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "predicted", "confidence"])
        for index in order:
            label, predicted = predictions.label_ids[index], top_ids[index, 0]
            writer.writerow([rows[index], label, predicted, f"{confidence[index]:.6f}"])
