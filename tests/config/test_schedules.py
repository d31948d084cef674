import pytest

from hf_accel.config.recipe import load_recipe
from hf_accel.config.schedules import OneCycle, Trapezoid, own_schedule
from hf_accel.errors import UserError


def test_a_schedule_of_this_package_has_its_arguments_as_a_mapping_or_as_json():
    assert own_schedule({"lr_scheduler_type": "one_cycle"}) == OneCycle()
    asked = {"lr_scheduler_type": "trapezoid", "lr_scheduler_kwargs": {"decay_steps": 100}}
    assert own_schedule(asked) == Trapezoid(decay_steps=100)
    assert own_schedule(asked | {"lr_scheduler_kwargs": '{"decay_steps": 100}'}) == Trapezoid(decay_steps=100)
    assert own_schedule({"lr_scheduler_type": "cosine"}) is own_schedule({}) is None


@pytest.mark.parametrize(
    ("kind", "kwargs", "words"),
    [
        ("one_cycel", None, "training.lr_scheduler_type is 'one_cycel'. Did you mean one_cycle?"),
        ("cosin", None, "Did you mean cosine"),
        ("one_cycle", {"pct_start": 1.0}, "lr_scheduler_kwargs.pct_start is 1.0, expected a number from 0 to below 1"),
        ("one_cycle", {"anneal_strategy": "cosine"}, "expected one of cos, linear"),
        ("one_cycle", {"max_lr": 1.0}, "lr_scheduler_kwargs.max_lr is not a setting, expected one of pct_start"),
        ("one_cycle", "[1]", "expected a mapping of settings"),
        ("one_cycle", "{pct", "expected a mapping of settings"),
        ("trapezoid", {"decay_steps": 0}, "decay_steps is 0, expected a number above 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_the_recipe(kind, kwargs, words):
    with pytest.raises(UserError) as caught:
        load_recipe("digits", overrides={"training": {"lr_scheduler_type": kind, "lr_scheduler_kwargs": kwargs}})
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_arguments_of_upstreams_schedules_are_left_to_upstream():
    training = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}}
    assert load_recipe("digits", overrides={"training": training}).training["lr_scheduler_kwargs"] == {"min_lr": 1e-5}
