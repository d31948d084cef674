"""The half of the Trainer that scores: five classes are kept per row unless logits are needed, and no row goes unscored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput

from hf_accel.errors import UserError
from hf_accel.inputs.features import FeatureBatches
from hf_accel.inputs.prepared import PreparedBatches, ScoredBatches
from hf_accel.inputs.text import TextBatches
from hf_accel.methods import BatchLoss, BeforeTraining, ChoosesRows, EvaluatedWeights
from hf_accel.models.head import known_labels
from hf_accel.training.answers import Answers, answers_of
from hf_accel.training.evaluation import EvaluationMetrics

Batch = dict[str, Any]
Method = TrainerCallback | AbstractContextManager | BatchLoss | BeforeTraining | ChoosesRows
Methods = list[Method]


class ScoringTrainer(Trainer):
    """A Trainer that evaluates whole batches (`ScoredBatches`), which are transformed on the device.

    Args:
        model: the classifier.
        args: TrainingArguments.
        eval_transform: batch on the device, completed by its dataset -> arguments of the model, `labels` included.
        test_dataset: the batches that are scored at the end.
        read_rows: rows that a caller brings later -> the batches that an evaluation of them reads; None: it takes none.
        scoring_model: model -> what an evaluation calls in its place; None: the model itself.
        methods: see `hf_accel.methods`; here those that are contexts of a step, or have weights to evaluate.
        kwargs: what else Trainer takes.
    """

    model: PreTrainedModel

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: TrainingArguments,
        eval_transform: Callable[[Batch], Batch],
        test_dataset: ScoredBatches,
        read_rows: Callable[[Any], ScoredBatches] | None = None,
        scoring_model: Callable[[nn.Module], Callable[..., ModelOutput]] | None = None,
        methods: Sequence[Method] = (),
        **kwargs: Any,
    ) -> None:
        with warnings.catch_warnings():
            # the smoothing that upstream leaves out is in our loss
            warnings.filterwarnings("ignore", "Label smoothing is not compatible with multi-label", UserWarning)
            super().__init__(model=model, args=args, **kwargs)
        self.eval_transform = eval_transform
        self.test_dataset = test_dataset
        self.answers = self._answers()
        self.read_rows = read_rows
        self.scoring_model = scoring_model
        self.methods = list(methods)
        self._predicts_logits = self._adds_logits = False
        self._scored_dataset: ScoredBatches = test_dataset

    def _answers(self) -> Answers:
        """What the logits say, as the metrics have it; else as the config of the model says it."""
        if isinstance(self.compute_metrics, EvaluationMetrics):
            return self.compute_metrics.answers
        return answers_of(self.model.config, len(known_labels(self.model.config)))

    @contextmanager
    def step_methods(self) -> Iterator[None]:
        """The methods that are contexts of a step, entered in their order."""
        with ExitStack() as stack:
            for method in self.methods:
                if isinstance(method, AbstractContextManager):
                    stack.enter_context(method)
            yield

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        inputs = super()._prepare_inputs(inputs)
        return inputs if self.model.training else self._scored_inputs(inputs)

    def _scored_inputs(self, inputs: Batch) -> Batch:
        completed = self._scored_dataset.complete(inputs)
        is_done = isinstance(self._scored_dataset, PreparedBatches | FeatureBatches)
        return completed if is_done else self.eval_transform(completed)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        # upstream drops the last, shorter batch of an evaluation too, and its rows silently go unscored
        asked = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = asked and kwargs.get("is_training", False)
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = asked

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Texts are scored in the order of their length, the longest first, so that little of a batch is padding."""
        if not isinstance(eval_dataset, TextBatches) or eval_dataset.lengths is None:
            return super()._get_eval_sampler(eval_dataset)
        return np.argsort(-eval_dataset.lengths, kind="stable").tolist()

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        assert isinstance(dataloader.dataset, ScoredBatches), "an evaluation reads whole batches"
        self._scored_dataset = dataloader.dataset
        asked = self.compute_metrics
        if asked is not None and not isinstance(asked, EvaluationMetrics):  # set by the caller in place of ours
            self.compute_metrics = EvaluationMetrics(self.answers, own=asked, standard=False)
        try:
            with self._evaluated_weights():
                self._share_buffers()
                return super().evaluation_loop(dataloader, *args, **kwargs)
        finally:
            self.compute_metrics = asked

    def _share_buffers(self) -> None:
        """Give the statistics of batch norm of the first process, which are saved, to all, as DDP does before each step."""
        if self.args.world_size > 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            for buffer in self.model.buffers():
                broadcast(buffer)

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        with ExitStack() as stack:
            for method in self.methods:
                if isinstance(method, EvaluatedWeights):
                    stack.enter_context(method.in_place())
            yield

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As upstream; `eval_dataset` may also be rows in any form that `build_trainer` takes.

        Raises:
            UserError: rows that cannot be understood, or without labels.
        """
        if eval_dataset is not None and not isinstance(eval_dataset, dict | str):
            eval_dataset = self.scored_batches(eval_dataset)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """The logits of every row, in the order of the rows.

        Args:
            test_dataset: `test_dataset` or `eval_dataset` of this Trainer, or rows in any form that `build_trainer` takes;
                their labels may be missing.
            args, kwargs: as upstream.
        Returns:
            predictions (N, C) float32, the logits; label_ids (N,) int64, or (N, C) where a row has any number of labels, and
            None for rows without labels; metrics.
        Raises:
            UserError: rows that cannot be understood.
        """
        self._predicts_logits = True
        try:
            output = super().predict(self.scored_batches(test_dataset), *args, **kwargs)
        finally:
            self._predicts_logits = False
        logits, rows = output.predictions  # type: ignore[misc]  # upstream says a tuple of one
        order = np.argsort(rows)
        labels = None if output.label_ids is None else np.asarray(output.label_ids)[order]
        return PredictionOutput(logits[order], labels, output.metrics)

    def score(self, dataset: ScoredBatches, metric_key_prefix: str = "test", logits: bool = False) -> PredictionOutput:
        """As `predict`, but of each row `Answers.kept_of_rows` and the row's number are kept: logits of many classes are large.

        Args:
            logits: keep them, too, (N, C) before the numbers of the rows.
        """
        self._adds_logits = logits
        try:
            output = super().predict(dataset, metric_key_prefix=metric_key_prefix)
        finally:
            self._adds_logits = False
        *first, rows = output.predictions
        if len(first) >= self.answers.num_kept:
            return output
        needed = torch.from_numpy(first[0])  # by the metrics of the caller
        figures = self.answers.kept_of_rows(needed, torch.from_numpy(np.asarray(output.label_ids)))
        whole = (needed,) if logits else ()
        kept: Any = (*(figure.numpy() for figure in (*figures, *whole)), rows)
        return PredictionOutput(kept, output.label_ids, output.metrics)

    def scored_batches(self, rows: Any) -> ScoredBatches:
        """The dataset that an evaluation of these rows reads."""
        if isinstance(rows, ScoredBatches):
            return rows
        if self.read_rows is None:
            raise UserError("This Trainer only scores the rows that it was built with. Expected its test_dataset.")
        return self.read_rows(rows)

    @property
    def _keeps_logits(self) -> bool:
        metrics = self.compute_metrics
        return self._predicts_logits or (isinstance(metrics, EvaluationMetrics) and metrics.needs_logits)

    def prediction_step(  # type: ignore[override]  # upstream returns tuples of logits, and its type does not say so
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, tuple[Tensor, ...] | None, Tensor | None]:
        """Keep of each row the logits, or else what `Answers.kept_of_rows` says, and the row's number."""
        rows = inputs["rows"].to(self.args.device)
        scored: Any = model if self.scoring_model is None else self.scoring_model(model)
        with self.step_methods():
            loss, logits, labels = super().prediction_step(scored, inputs, prediction_loss_only, ignore_keys)
        if logits is None:
            return loss, None, labels
        if isinstance(logits, tuple):  # outputs next to the logits, as DeiT with teacher has
            logits = logits[0]
        if self._keeps_logits:
            return loss, (logits.float(), rows), labels
        if labels is None:
            return loss, None, None
        whole = (logits.float(),) if self._adds_logits else ()
        return loss, (*self.answers.kept_of_rows(logits, labels), *whole, rows), labels
