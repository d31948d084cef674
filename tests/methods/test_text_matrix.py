"""Training of texts: it resumes bit for bit, micro-batches are one batch, and bf16 and two processes give the same."""

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_accel.report.run_report import RunReport
from hf_accel.train import train
from hf_accel.training.build import build_trainer
from tests.support.texts import text_recipe
from tests.support.trained import assert_same_but_for_rounding, assert_same_run, differing, losses, weights
from tests.support.two_processes import train_in_two_processes

pytestmark = pytest.mark.slow

GROUPED = {"training": {"train_sampling_strategy": "group_by_length"}}
SETTINGS = {
    "plain": {},
    "grouped by length": GROUPED,
    "balanced rows, grouped by length": GROUPED | {"data": {"sampling": "balanced"}},
    "hard rows": {"data": {"hard_examples": {"fraction": 0.9}}},
    "tokens on disk": {"data": {"cache": "disk"}},
    "tokens read": {"data": {"cache": "none"}},
    "class weights": {"data": {"class_weights": "balanced"}},
    "average": {"training": {"ema_decay": 0.9}},
    "layer decay": {"training": {"layer_decay": 0.8}},
    "sparsity": {"training": {"sparsity": {"final": 0.5}}},
}  # fmt: skip
STEPS, CHECKPOINT = 6, 4  # of two epochs: 19 rows in batches of 8; within the second epoch
LOGGED = {
    "training": {
        "num_train_epochs": 2,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "optim": "sgd",
    }
}
SAVED = {"training": {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}}


@pytest.fixture
def make(tmp_path):
    def trainer(folder, *patches, kind="xlnet"):
        places = {"data": {"cache_dir": str(tmp_path / "cache")}, "training": {"output_dir": str(tmp_path / folder)}}
        return build_trainer(text_recipe(tmp_path, LOGGED, places, *patches, kind=kind))

    return trainer


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_and_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(name, make, tmp_path):
    whole = make("run", SAVED, SETTINGS[name])
    before = weights(whole)
    whole.train()
    assert len(losses(whole)) == whole.state.global_step == STEPS
    unused = {"mask_emb", "seg_embed", "r_s_bias"}  # of other tasks, and of texts in two parts
    assert {name.rpartition(".")[2] for name in before.keys() - differing(before, weights(whole))} <= unused

    resumed = make("run", SAVED, SETTINGS[name])
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert_same_run(whole, resumed)


def test_the_comparison_of_a_resumed_run_finds_random_numbers_that_were_not_loaded(make, tmp_path, monkeypatch):
    """The negative control: dropout draws."""
    whole = make("run", SAVED)
    whole.train()
    monkeypatch.setattr(Trainer, "_load_rng_state", lambda *args: None)
    resumed = make("run", SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{CHECKPOINT}"))
    assert differing(weights(whole), weights(resumed))


@pytest.mark.parametrize("kind", ["xlnet", "bert", "gpt2"])
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_micro_batches_are_one_batch_although_they_are_padded_to_other_lengths(strategy, kind, make):
    def trained(batch, steps):
        training = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_grad_norm": 0,
                    "train_sampling_strategy": strategy}  # fmt: skip
        names = ("dropout", "summary_last_dropout") if kind == "xlnet" else ("resid_pdrop", "embd_pdrop", "attn_pdrop")
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob") if kind == "bert" else names
        model = {"args": dict.fromkeys(names, 0.0)}
        trainer = make(f"of {batch}", {"training": training, "model": model}, kind=kind)
        trainer.train()
        return trainer

    big, small = trained(8, 1), trained(2, 4)
    assert big.state.global_step == STEPS
    assert_same_but_for_rounding(big, small)


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("xlnet", {}),
        ("xlnet", {"model": {"freeze": "backbone"}}),
        ("bert", {"model": {"lora": {"rank": 2}}}),
        ("bert", {"training": {"gradient_checkpointing": True}}),  # XLNet cannot compute its activations again
    ],
)
def test_it_composes_with_bf16(kind, patch, make):
    trainer = make("run", {"training": {"bf16": True}}, patch, kind=kind)
    before = weights(trainer)
    trainer.train()
    assert np.isfinite(losses(trainer)).all()
    assert differing(before, weights(trainer))
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert np.isfinite(trainer.evaluate(trainer.test_dataset)["eval_loss"])


@pytest.mark.parametrize("name", ["plain", "balanced rows, grouped by length"])
def test_two_processes_give_what_one_gives_and_score_each_row_once(name, tmp_path):
    def recipe(folder, batch):
        training = {"per_device_train_batch_size": batch, "output_dir": str(tmp_path / folder), "seed": 3}
        # 16 rows, so that no batch is filled up; dropout would draw other numbers in each process
        model = {"args": {"dropout": 0.0, "summary_last_dropout": 0.0}}
        return text_recipe(
            tmp_path, LOGGED, SETTINGS[name], {"data": {"validation": 0.33}, "training": training, "model": model}
        )

    one = RunReport.load(train(recipe("one", 8)))
    two = train_in_two_processes(recipe("two", 4), tmp_path / "two.yaml")
    assert one.train.effective_batch_size == two.train.effective_batch_size == 8
    assert one.train.steps == two.train.steps == 4
    for first, second in zip(one.history, two.history, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-4)
    assert two.test.confusion == one.test.confusion
    assert sum(map(sum, two.test.confusion)) == 8
    assert two.reference == type(two.reference)(**{**vars(one.reference), "seconds": two.reference.seconds})
