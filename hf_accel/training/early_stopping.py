"""Early stopping that a resumed run continues where it was."""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStopping(EarlyStoppingCallback):
    """As upstream; a resumed run has counted the evaluations without progress of the run that was interrupted.

    Upstream restores this count only with `restore_callback_states_from_checkpoint`, which brings back the patience of the
    checkpoint, too, and trains on where the run was interrupted after its last step.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.global_step == 0:
            self.early_stopping_patience_counter = 0
        control.should_training_stop |= self.early_stopping_patience_counter >= self.early_stopping_patience

    def state_dict(self) -> dict[str, Any]:
        return {"without_progress": self.early_stopping_patience_counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.early_stopping_patience_counter = state["without_progress"]
