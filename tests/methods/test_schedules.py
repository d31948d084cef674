import pytest
import torch
from torch import nn

from hf_accel.config.schedules import OneCycle, Trapezoid
from hf_accel.methods.schedules import build_schedule
from hf_accel.training.build import build_trainer


def two_groups():
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.02}], lr=0.5)


def curve(schedule, optimizer, steps):
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return torch.tensor(rates)


@pytest.mark.parametrize(
    "settings",
    [
        OneCycle(),
        OneCycle(pct_start=0.4, anneal_strategy="linear", div_factor=10, final_div_factor=100),
        OneCycle(pct_start=0.0),
    ],
)
@pytest.mark.parametrize("steps", [2, 7, 50, 203])
def test_one_cycle_is_torchs(settings, steps):
    ours, theirs = two_groups(), two_groups()
    expected = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        max_lr=[0.5, 0.02],
        total_steps=steps,
        pct_start=0.3 if settings.pct_start is None else settings.pct_start,
        anneal_strategy=settings.anneal_strategy,
        div_factor=settings.div_factor,
        final_div_factor=settings.final_div_factor,
        cycle_momentum=False,
    )
    rates = curve(build_schedule(settings, ours, 0, steps), ours, steps)
    torch.testing.assert_close(rates, curve(expected, theirs, steps), rtol=1e-6, atol=1e-6)


def test_the_rate_of_one_cycle_rises_as_long_as_the_warm_up_where_there_is_one():
    optimizer = two_groups()
    rates = curve(build_schedule(OneCycle(), optimizer, 20, 100), optimizer, 100)
    assert rates[:, 0].argmax() == 19
    optimizer = two_groups()
    asked = curve(build_schedule(OneCycle(pct_start=0.5), optimizer, 20, 100), optimizer, 100)
    assert asked[:, 0].argmax() == 49


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (10, 1), (10, 10), (10, 99)])
def test_one_cycle_takes_the_shortest_runs(steps, warmup):
    optimizer = two_groups()
    rates = curve(build_schedule(OneCycle(), optimizer, warmup, steps), optimizer, steps)
    assert torch.isfinite(rates).all()
    assert (rates >= 0).all()


@pytest.mark.parametrize(
    ("settings", "decay"),
    [(Trapezoid(), 20), (Trapezoid(decay_steps=30), 30), (Trapezoid(decay_steps=0.4, decay_type="cosine"), 40)],
)
def test_a_trapezoid_rises_stays_and_decays(settings, decay):
    optimizer = two_groups()
    rates = curve(build_schedule(settings, optimizer, 10, 100), optimizer, 101)
    assert rates[0].tolist() == [0, 0]
    torch.testing.assert_close(rates[5], torch.tensor([0.25, 0.01]))
    torch.testing.assert_close(rates[10 : 101 - decay], torch.tensor([[0.5, 0.02]]).expand(91 - decay, 2))
    torch.testing.assert_close(rates[100 - decay // 2], torch.tensor([0.25, 0.01]))
    torch.testing.assert_close(rates[100], torch.tensor([0.0, 0.0]))


def test_a_decay_that_is_longer_than_the_run_begins_after_the_warm_up():
    optimizer = two_groups()
    rates = curve(build_schedule(Trapezoid(decay_steps=10**6), optimizer, 4, 10), optimizer, 10)[:, 0]
    assert rates.argmax() == 4
    assert (rates[4:].diff() < 0).all()


@pytest.mark.slow
def test_a_run_follows_the_schedule_with_every_rate_and_can_be_made_longer(tiny_recipe, tmp_path):
    def trained(epochs, checkpoint=None):
        training = {"lr_scheduler_type": "one_cycle", "lr_scheduler_kwargs": {"pct_start": 0.5}, "warmup_steps": 0,
                    "num_train_epochs": epochs, "logging_steps": 1, "optim": "sgd", "head_learning_rate": 1.0,
                    "output_dir": str(tmp_path / "run"), "eval_strategy": "no", "save_strategy": "epoch"}  # fmt: skip
        trainer = build_trainer(tiny_recipe({"training": training}))
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    short = trained(2)
    steps = short.state.max_steps
    rates = [entry["learning_rate"] for entry in short.state.log_history if "learning_rate" in entry]
    optimizer = two_groups()
    expected = curve(build_schedule(OneCycle(pct_start=0.5), optimizer, 0, steps), optimizer, steps + 1)
    torch.testing.assert_close(torch.tensor(rates), expected[:-1, 0] / 0.5 * 1e-2)
    assert len(short.optimizer.param_groups) > 2
    for group in short.optimizer.param_groups:
        assert group["lr"] / group["initial_lr"] == pytest.approx(expected[-1, 0].item() / 0.5)
    longer = trained(4, str(tmp_path / "run" / f"checkpoint-{steps}"))
    assert longer.state.global_step == 2 * steps
