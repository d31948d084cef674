"""After the last step: save the model, score the splits, gather everything into one `RunReport`, and show it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_utils import PredictionOutput

from hf_accel.compression.rows import rows_of
from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.hub.card import write_card, write_notebook
from hf_accel.hub.examples import write_examples
from hf_accel.hub.publication import cleaned_recipe, cleaned_report
from hf_accel.machine.description import describe_environment
from hf_accel.measure.latency import Latency, cpu_latency
from hf_accel.models import thresholds
from hf_accel.models.lora import merge_adapters
from hf_accel.models.saved import ROWS_COMPARED, check_saved
from hf_accel.report.calibration import CalibrationSummary
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.history import history_from_log
from hf_accel.report.page import draw_plots, write_page
from hf_accel.report.run_report import (
    DataSummary,
    ModelSummary,
    ReferenceScores,
    RunReport,
    Scores,
    TrainSummary,
)
from hf_accel.runs import manifest
from hf_accel.runs.folder import RunFolder
from hf_accel.tasks import TASKS
from hf_accel.tasks.predictions import RowPredictions
from hf_accel.training.confidence import learn_confidence, score_test
from hf_accel.training.pruning import pruning_figures
from hf_accel.training.quantization import quantization_summary, save_learned_ranges
from hf_accel.training.thresholds import learn_thresholds
from hf_accel.training.trainer import ImageTrainer
from hf_accel.transforms.views import NUM_VIEWS

logger = logging.getLogger(__name__)


def finish(
    run: RunFolder, recipe: Recipe, trainer: ImageTrainer, export: Callable[[], None] = lambda: None
) -> FinishedRun:
    """Save the model, score the test split once, and write predictions and report; then the page and the card.

    From `report.json` on, the run is finished: what fails after it costs a warning, because it can be made again.

    Args:
        export: makes files of the saved model, which the page shows; called on the main process.
    Returns:
        The finished run, on every rank.
    """
    train_summary = summarise_training(trainer, trainer.train_accuracy())
    merge_adapters(trainer.model)
    calibration, validation = learn_confidence(trainer), learn_thresholds(trainer)
    save_model(run, trainer)
    save_learned_ranges(trainer, run.model)
    output, calibration = score_test(trainer, calibration)
    latency = check_saved_model(trainer, run.model)
    report = build_report(trainer, recipe, train_summary, output, calibration, validation, run.model, latency)
    finished = FinishedRun(run, recipe, report)
    if trainer.args.should_save:  # the process that writes the folder, or the folder of its machine
        run.seal_model()
        run.record_results(finished.report.texts(run))
        predictions = trainer.answers.predictions_of(output, trainer.splits.test)
        write_whole(run.predictions, predictions.to_text())
        finished.report.save(run.path)
    if trainer.is_world_process_zero():
        export()
        write_extras(finished, predictions, trainer.splits, trainer.model, trainer.loaded.processor)
    trainer.accelerator.wait_for_everyone()
    return finished


def save_model(run: RunFolder, trainer: ImageTrainer) -> None:
    """Save the trained model, which does not count as complete until `RunFolder.seal_model`."""
    if trainer.args.should_save:
        manifest.begin(run.model, clear=False)  # a card and a notebook may be there
    trainer.save_model(str(run.model))
    if trainer.args.should_save:
        # a pickle with local paths and perhaps a token: nothing in this package reads it
        (run.model / "training_args.bin").unlink(missing_ok=True)


def report_on(trainer: ImageTrainer) -> RunReport:
    """Score the test rows with a trained model, and gather the measurements of its run; nothing is written.

    The config of the model gets what the validation rows tell about its confidence, as `hf-accel train` saves it.

    Args:
        trainer: of `build_trainer`, after `train()`.
    Returns:
        The report that `hf-accel train` writes; `report.save(folder)` writes it.
    Raises:
        UserError: the trainer only scores, so there is no run.

    >>> report_on(trainer).test.accuracy  # doctest: +SKIP
    0.9638
    """
    if not hasattr(trainer, "recipe"):
        raise UserError("report_on: expected a trainer of build_trainer, and this one only scores")
    summary = summarise_training(trainer, trainer.train_accuracy())
    calibration, validation = learn_confidence(trainer), learn_thresholds(trainer)
    return build_report(trainer, trainer.recipe, summary, *score_test(trainer, calibration), validation)


def build_report(
    trainer: ImageTrainer,
    recipe: Recipe,
    train: TrainSummary,
    output: PredictionOutput,
    calibration: CalibrationSummary | None = None,
    validation: Scores | None = None,
    model: Path | None = None,
    latency: Latency | None = None,
) -> RunReport:
    """Gather what was measured.

    Args:
        output, calibration: of `score_test`.
        validation: of `learn_thresholds`; None: those of the training run.
        model: the folder of the saved model; None: it is not saved.
        latency: of the saved model on the CPU; None: it was not measured.
    """
    settings, notes = trainer.arguments.changed, trainer.notes
    if trainer.compile_failure is not None:
        settings = {name: value for name, value in settings.items() if not name.startswith("torch_compile")}
        notes = [*notes, trainer.compile_failure]
    notes = [*notes, *batch_size_note(trainer)]
    test = trainer.answers.scores_of(output, trainer.splits.label_names, "test")
    config = trainer.model.config
    views = recipe.data.test_time_augmentation
    return RunReport(
        recipe=recipe.name,
        variant=recipe.variant,
        task=recipe.model.task,
        settings=settings,
        notes=notes,
        environment=describe_environment(trainer.args.device),
        data=summarise_data(trainer, recipe),
        model=ModelSummary(
            name=recipe.model.name,
            parameters=trainer.loaded.parameters,
            flops_per_image=trainer.flops_per_image,
            pretrained=None if trainer.loaded.is_given else recipe.model.pretrained,
            cpu_latency_seconds=latency.seconds if latency else None,
            cpu_latency_runs=latency.runs if latency else None,
        ),
        train=replace(train, compiled=was_compiled(trainer), compile_failure=trainer.compile_failure),
        history=history_from_log(trainer.state.log_history),
        **pruning_figures(trainer, model),
        quantization=quantization_summary(trainer),
        thresholds=thresholds.of_config(config, len(test.per_class or ())).tolist()
        if thresholds.are_learned(config)
        else None,
        validation=validation or validation_scores(trainer),
        test=replace(test, views=NUM_VIEWS.get(views, 1), test_time_augmentation=views),
        calibration=calibration,
        reference=reference_scores(trainer, recipe),
    )


def reference_scores(trainer: ImageTrainer, recipe: Recipe) -> ReferenceScores | None:
    """The scores of a plain method on the same rows, where the task has one; on the first rank."""
    if not trainer.is_world_process_zero():
        return None
    try:
        found = TASKS[recipe.model.task].reference(trainer.splits)
    except Exception as error:  # of another library, on data of any kind: it must not cost the run
        logger.warning("reference: not scored (%s)", " ".join(f"{type(error).__name__}: {error}".split())[:300])
        return None
    return None if found is None else ReferenceScores(**vars(found))


def batch_size_note(trainer: ImageTrainer) -> list[str]:
    """What `auto_find_batch_size` did, if it did something."""
    smaller = trainer.smaller_batches
    if smaller is None or not smaller.halvings:
        return []
    return [
        f"auto_find_batch_size: since step {step} a forward pass has at most {rows} of the {smaller.asked} rows of a batch, "
        "because memory ran out; the rows of each step are the same"
        for step, rows in smaller.halvings
    ]


def was_compiled(trainer: ImageTrainer) -> bool | None:
    """As `TrainSummary.compiled`; a Trainer that gave up compiling takes torch_compile back."""
    if trainer.compile_failure is not None:
        return False
    return True if trainer.args.torch_compile else None


def write_extras(
    run: FinishedRun,
    predictions: RowPredictions | None,
    splits: Splits | None,
    model: PreTrainedModel | None,
    processor: BaseImageProcessor | None,
    explain: bool = False,
) -> list[str]:
    """Write what is made from a finished run: page, plots, examples, card, notebook, each for itself.

    Args:
        predictions: of the test rows; None: the page shows no mistakes.
        splits: None, the data cannot be had: the page shows no rows, and examples stay as they are.
        model: answers the examples; None keeps those that there are.
        explain: draw heat maps over the mistakes.
    Returns:
        What could not be written; each was logged, with the command that makes it later.
    """
    folder, task, failed = run.folder, TASKS[run.recipe.model.task], []

    def attempt(what: str, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except Exception as error:  # of plots, pictures, a library, the disk: none of it may cost the run
            failed.append(what)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning(
                "%s: not written (%s). Scores and model are saved; `hf-accel page %s` makes it later.",
                what,
                reason,
                shlex.quote(str(folder.path)),
            )
            return None

    pictures = page_pictures(run, attempt, predictions, splits, processor)
    if explain and "gallery" in pictures and model is not None:
        draw = partial(task.explained, pictures["gallery"], model, processor)
        pictures["gallery"] = attempt("heat maps", draw) or pictures["gallery"]
    plots = attempt("plots", lambda: draw_plots(run.report, folder.plots))
    if splits is not None and model is not None and processor is not None:
        attempt("examples", lambda: write_examples(folder, run.recipe, task.examples(splits.test, model, processor)))
    attempt("model card", lambda: write_card(run))
    attempt(folder.notebook.name, lambda: write_notebook(run))
    # last, because it links to the others; cleaned, because pages are shared
    attempt(
        folder.page.name,
        lambda: write_page(
            folder.path,
            cleaned_report(run),
            plots=plots or {},
            recipe_text=cleaned_recipe(run),
            forms=attempt("exported files", lambda: rows_of(folder.exported)) or (),
            **pictures,
        ),
    )
    return failed


def page_pictures(
    run: FinishedRun,
    attempt: Callable[[str, Callable[[], Any]], Any],
    predictions: RowPredictions | None,
    splits: Splits | None,
    processor: BaseImageProcessor | None,
) -> dict[str, Any]:
    """The pictures of a page, as `write_page` takes them; those that cannot be had are left out."""
    if splits is None:
        return {}
    task, found = TASKS[run.recipe.model.task], {}
    if predictions is not None:
        found["gallery"] = attempt("gallery of mistakes", lambda: task.mistakes(predictions, splits.test))
        found["pairs"] = attempt("mistakes by pair", lambda: task.mistakes_by_pair(predictions, splits.test))
    found["sample"] = attempt("sample of the data", lambda: task.sample(splits.train))
    if processor is not None:
        found["as_trained"] = attempt("images as trained on", lambda: task.as_trained(run.recipe, splits, processor))
    return {name: pictures for name, pictures in found.items() if pictures}


def check_saved_model(trainer: ImageTrainer, folder: Path) -> Latency | None:
    """Compare the saved model with the trained one on the first test rows, on the rank that saved it.

    Returns:
        The latency of the saved model on a CPU; None on other ranks, and where no rank holds the whole model.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # no rank holds the whole model
    if trainer.is_world_process_zero() and not sharded:
        test = trainer.test_dataset
        trainer.model.eval()
        batch = trainer._prepare_inputs(test.__getitems__(list(range(min(ROWS_COMPARED, len(test))))))
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        auto_model = TASKS[trainer.recipe.model.task].auto_model
        saved = check_saved(folder, trainer.model, trainer.splits.label_names, inputs, auto_model)
        try:
            return cpu_latency(saved, {name: value[:1] for name, value in inputs.items()})
        except RuntimeError as error:  # an operation that a CPU does not have, or its memory: the run has its scores
            logger.warning("latency on the CPU: not measured (%s)", " ".join(str(error).split())[:200])
    return None


def summarise_data(trainer: ImageTrainer, recipe: Recipe) -> DataSummary:
    splits = trainer.splits
    return DataSummary(
        name=recipe.data.name,
        fingerprint=splits.fingerprint,
        fingerprints=splits.fingerprints,
        train_rows=len(splits.train),
        validation_rows=None if splits.validation is None else len(splits.validation),
        test_rows=len(splits.test),
        test_split=splits.test_split,
        labels=list(splits.label_names),
        duplicates_searched=splits.duplicates_searched,
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
        skipped_steps=trainer.finite_steps.skipped,
        out_of_memory=None if trainer.smaller_batches is None else [list(x) for x in trainer.smaller_batches.halvings],
        epochs=state.epoch,
        world_size=args.world_size,
        parallel=parallelism(trainer),
        resumes=trainer.measurement.resumes,
        repeated_steps=trainer.measurement.repeated_steps,
        effective_batch_size=trainer.get_total_train_batch_size(args),
        **{name: over_ranks(name, max) for name in timing if name != "images_per_second"},
        images_per_second=over_ranks("images_per_second", sum),
        **{name: over_ranks(name, max) for name in figures if name.startswith("peak_")},
        **{name: over_ranks(name, sum) for name in figures if not name.startswith("peak_")},
        final_loss=losses[-1] if losses else None,
        accuracy=accuracy,
    )


def parallelism(trainer: ImageTrainer) -> str | None:
    """As `TrainSummary.parallel`."""
    if trainer.is_deepspeed_enabled:
        return "deepspeed"
    if trainer.is_fsdp_enabled:
        return f"fsdp{trainer.accelerator.state.fsdp_plugin.fsdp_version}"
    return "ddp" if trainer.args.world_size > 1 else None


def validation_scores(trainer: ImageTrainer) -> Scores | None:
    """The validation figures of the model that is kept: the best checkpoint's, or the last ones."""
    entries = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    if not entries:
        return None
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    if best is not None:
        step = int(best.rsplit("-", 1)[1])
        entries = [entry for entry in entries if entry["step"] == step] or entries
    return Scores(**{name: entries[-1].get(f"eval_{name}") for name in Scores.__dataclass_fields__})
