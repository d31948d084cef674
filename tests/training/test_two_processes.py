"""Two processes against one with the same effective batch, where the rows do not divide evenly."""

import json
from itertools import chain

import numpy as np
import pytest
import torch

from hf_accel.config.recipe import apply_patch, load_recipe
from hf_accel.inputs.sampling import WholeRounds
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer
from tests.conftest import TINY
from tests.support.two_processes import output_of_two

STEPS = 20
MIXED = {"data": {"augment": {"mixup": 0.5, "crop": "none"}, "class_weights": [0.5, 2.0]},
         "training": {"ema_decay": 0.9, "label_smoothing_factor": 0.1}}  # fmt: skip
BY_LOSS = {"data": {"hard_examples": {"fraction": 0.5}}}
LEFT_OUT = {"training": {"dataloader_drop_last": True}}
# rows of an epoch, accumulation, further settings; eight rows per step
CASES = {
    "one row in the last step": (17, 1, {}),
    "a row for the second process in the last step": (21, 1, {}),
    "one row in the last micro-batch": (17, 2, {}),
    "a row for the second process in the last micro-batch": (19, 2, {}),
    "one row in the last step, mixed": (17, 1, MIXED),
    "one row in the last step, rows by loss": (17, 1, BY_LOSS),
    "batches that are split": (19, 1, {"training": {"accelerator_config": {"split_batches": True}}}),
    "the last batches left out": (21, 1, LEFT_OUT),
}
TRAIN_EACH = """
import json, sys, torch
from hf_accel.config.recipe import load_recipe
from tests.training.test_two_processes import outcome
found = {file: outcome(load_recipe(file), 2) for file in sys.argv[2:]}
rank = torch.distributed.get_rank()
torch.save({name: weights for name, (weights, *_) in found.items()}, f"{sys.argv[1]}_{rank}.pt")
json.dump({name: rest for name, (_, *rest) in found.items()}, open(f"{sys.argv[1]}_{rank}.json", "w"))
"""


def outcome(recipe, processes):
    """Weights, logged losses and scores of a run, and the rows of each step that count in this process."""
    trainer = build_trainer(recipe)
    assert trainer.args.world_size == processes
    steps, step = [], ImageTrainer.training_step

    def training_step(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        steps.append((self.state.global_step, [] if self.is_repeated else self._rows.tolist()))
        return loss

    ImageTrainer.training_step = training_step
    try:
        trainer.train()
    finally:
        ImageTrainer.training_step = step
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    scores = trainer.evaluate(trainer.test_dataset)
    kept = {name: value for name, value in scores.items() if name in ("eval_loss", "eval_accuracy")}
    return trainer.model.state_dict(), losses, kept, trainer.train_accuracy(), steps


def both(place, photos):
    """Of each case: what one process gives, and what each of two gives."""

    def recipe(name, processes):
        rows, accumulation, patch = CASES[name]
        splits = "accelerator_config" in patch.get("training", {})
        batch = 8 // accumulation // (1 if splits else processes)
        training = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": STEPS,
                    "logging_steps": 1, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.05,
                    "output_dir": str(place / f"{processes} {name}")}  # fmt: skip
        base = {"model": {"freeze_batch_norm": True}, "training": training,
                "data": {"name": str(photos), "validation": 0, "max_train_rows": rows}}  # fmt: skip
        return load_recipe("finetune", overrides=apply_patch(apply_patch(TINY, base), patch))

    files = {name: place / f"{number}.yaml" for number, name in enumerate(CASES)}
    for name, file in files.items():
        recipe(name, 2).write(file)
    (place / "each.py").write_text(TRAIN_EACH)
    output_of_two(place / "each.py", place / "found", *files.values())
    weights = [torch.load(place / f"found_{rank}.pt") for rank in (0, 1)]
    figures = [json.loads((place / f"found_{rank}.json").read_text()) for rank in (0, 1)]
    for name, file in files.items():
        two = [(weights[rank][str(file)], *figures[rank][str(file)]) for rank in (0, 1)]
        yield name, outcome(recipe(name, 1), 1), two


@pytest.mark.slow
def test_an_odd_last_batch_gives_in_two_processes_what_it_gives_in_one(photos, tmp_path):
    (photos / "test" / "red" / "00.png").unlink()  # an odd number of rows to score, too
    for name, (weights, losses, scores, accuracy, steps), two in both(tmp_path, photos):
        rows, accumulation, patch = CASES[name]
        in_steps = [[rows_of(step, found) for *_, found in two] for step in range(STEPS)]
        if patch == LEFT_OUT:
            assert len(set(chain(*in_steps[0], *in_steps[1]))) == 16 == rows // 8 * 8
            continue
        assert len(losses) == STEPS
        for step, shared in enumerate(in_steps):
            assert sorted(chain(*shared)) == sorted(rows_of(step, steps)), name
        is_alone = 0 < rows % (8 // accumulation) <= 4 // accumulation  # the first process, in the last micro-batch
        assert ([] in [found for _, found in two[1][-1]]) == is_alone, name
        for tensors, *figures, _ in two:
            assert figures[0] == pytest.approx(losses, rel=1e-5, abs=1e-6), name
            assert figures[1] == pytest.approx(scores, rel=1e-5), name
            assert figures[2] == pytest.approx(accuracy), name
            for tensor, value in weights.items():
                torch.testing.assert_close(tensors[tensor], value, rtol=1e-5, atol=1e-5, msg=f"{name}: {tensor}")


def rows_of(step, found):
    return [row for number, rows in found if number == step for row in rows]


@pytest.mark.parametrize("rows", range(14))
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_has_a_batch_in_every_round_and_every_row_counts_once(rows, processes):
    rounds = WholeRounds(range(rows), 2, processes)
    batches = list(rounds)
    assert len(batches) == len(rounds)
    assert len(batches) % processes == 0
    assert all(batches)
    counted = [
        row
        for process in range(processes)
        for number, batch in enumerate(batches[process::processes])
        if number < len(batches) // processes - 1 or rounds.counts_last(process)
        for row in batch
    ]
    assert np.array_equal(np.sort(counted), np.arange(rows))
