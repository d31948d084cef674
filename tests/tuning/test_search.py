"""The search, with made-up costs: what it accepts, in which order it measures, and where it stops."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from hf_accel.tuning.search import FIRST_PAIR, KEPT, Outcome, OutOfBudgetError, Search
from hf_accel.tuning.space import Technique


def technique(name: str, axis: str | None = None) -> Technique:
    return Technique(axis or name, name, {}, f"{name} may pay")


@dataclass
class MadeUp:
    """A bench whose costs are a product: 100, times the factor of each technique, times what pairs of them do."""

    factors: dict[str, float]
    together: dict[frozenset[str], float] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    budget: int = 10_000
    drift: float = 1.0  # of the machine, from trial to trial
    noise: float = 0.0  # standard deviation of the log cost
    done: list[tuple[tuple[str, ...], int, int]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def measure(self, techniques, rung, number) -> Outcome:
        if len(self.done) >= self.budget:
            raise OutOfBudgetError
        names = tuple(one.name for one in techniques)
        self.done.append((names, rung, number))
        for name in names:
            if name in self.broken:
                return Outcome(None, self.broken[name])
        cost = 100.0 * self.drift ** len(self.done) * math.exp(self.noise * self.rng.standard_normal())
        for name in names:
            cost *= self.factors.get(name, 1.0)
        for pair, factor in self.together.items():
            cost *= factor if pair <= set(names) else 1.0
        return Outcome(cost)

    def left(self) -> float:
        return 1 - len(self.done) / self.budget


def searched(bench: MadeUp, *names: str) -> Search:
    search = Search(bench, [technique(name) for name in names])
    search.run()
    return search


def best(search: Search) -> set[str]:
    return {one.name for one in search.best}


def test_what_lowers_the_cost_is_combined_and_the_rest_is_named():
    bench = MadeUp({"bf16": 0.5, "channels_last": 0.8, "workers": 1.3, "fused": 1.0})
    search = searched(bench, "workers", "bf16", "fused", "channels_last")
    assert best(search) == {"bf16", "channels_last"}
    words = {name: verdict.word for name, verdict in search.verdicts.items()}
    assert words == {"bf16": "accepted", "channels_last": "accepted", "workers": "no gain", "fused": "no gain"}
    assert search.verdicts["workers"].reason == "it is worse"
    assert search.verdicts["bf16"].contribution == pytest.approx(2.0)
    assert search.verdicts["channels_last"].contribution == pytest.approx(1.25)


def test_a_technique_that_fails_or_leaves_the_band_is_rejected_with_the_reason():
    bench = MadeUp({"good": 0.9}, broken={"oom": "out of memory", "nan": "its loss leaves the band"})
    search = searched(bench, "oom", "nan", "good")
    assert best(search) == {"good"}
    assert search.verdicts["oom"].word == search.verdicts["nan"].word == "rejected"
    assert search.verdicts["oom"].reason == "out of memory"


def test_a_combination_that_fails_costs_only_the_technique_that_was_added():
    class Fails(MadeUp):
        def measure(self, techniques, rung, number):
            if len(techniques) == 2:
                return Outcome(None, "hangs")
            return super().measure(techniques, rung, number)

    search = searched(Fails({"a": 0.5, "b": 0.6}), "a", "b")
    assert best(search) == {"a"}
    assert (search.verdicts["b"].word, search.verdicts["b"].reason) == ("rejected", "hangs")


def test_of_techniques_of_one_axis_the_better_one_is_in_force():
    bench = MadeUp({"workers_1": 0.9, "workers_2": 0.7})
    search = Search(bench, [technique("workers_1", "workers"), technique("workers_2", "workers")])
    search.run()
    assert best(search) == {"workers_2"}
    assert search.verdicts["workers_1"].word == "no gain"


def test_what_pays_only_together_with_another_is_found():
    bench = MadeUp({"bf16": 0.5, "kernels": 1.0}, together={frozenset({"bf16", "kernels"}): 0.7})
    assert best(searched(bench, "kernels", "bf16")) == {"bf16", "kernels"}


def test_what_the_other_techniques_make_useless_is_dropped():
    bench = MadeUp({"a": 0.9, "b": 0.88, "c": 0.8}, together={frozenset({"a", "c"}): 1.25})
    search = searched(bench, "a", "b", "c")
    assert best(search) == {"b", "c"}
    assert search.verdicts["a"].word == "no gain"


def test_a_machine_that_becomes_slower_from_trial_to_trial_makes_nothing_of_nothing():
    names = [f"useless_{number}" for number in range(6)]
    search = searched(MadeUp({}, drift=1.01), *names)
    assert search.best == ()


def test_a_machine_that_becomes_faster_from_trial_to_trial_makes_nothing_of_nothing():
    names = [f"useless_{number}" for number in range(6)]
    search = searched(MadeUp({}, drift=0.99), *names)
    assert search.best == ()


def test_halving_spends_long_trials_on_the_better_half_only():
    names = [f"t{number}" for number in range(12)]
    bench = MadeUp({name: 0.99 - 0.01 * place for place, name in enumerate(names)})
    searched(bench, *names)
    long = {done[0] for done, rung, number in bench.done if rung == 1 and number < FIRST_PAIR and done}
    assert long == set(names[6:])
    assert len(long) >= KEPT


def test_the_present_best_and_the_candidate_take_turns():
    bench = MadeUp({"a": 0.9, "b": 0.9})
    searched(bench, "a", "b")
    pairs = [done for done, rung, number in bench.done if number >= FIRST_PAIR][:4]
    assert pairs == [(), ("a",), ("a",), ()]
    assert len(set(bench.done)) == len(bench.done)  # every trial is a new one


def test_one_pair_is_enough_for_a_clear_gain():
    bench = MadeUp({"a": 0.5})
    searched(bench, "a")
    assert [done for done, rung, number in bench.done if number >= FIRST_PAIR] == [(), ("a",)]


def test_a_small_budget_combines_the_most_promising_and_says_what_was_not_tried():
    names = [f"t{number}" for number in range(8)]
    search = searched(MadeUp(dict.fromkeys(names, 0.9), budget=16), *names)
    assert search.stopped
    assert search.best
    assert best(search) < set(names[:6])
    assert search.verdicts["t7"].reason == "the budget ended before"


def test_a_budget_that_ends_at_once_leaves_the_recipe():
    search = searched(MadeUp({"a": 0.5}, budget=1), "a", "b")
    assert search.stopped
    assert search.best == ()
    assert [verdict.word for verdict in search.verdicts.values()] == ["not tried", "not tried"]


def test_without_techniques_one_trial_is_enough():
    bench = MadeUp({})
    assert searched(bench).best == ()
    assert len(bench.done) <= 1


def test_on_a_noisy_machine_large_gains_are_found_and_nothing_is_rarely_taken_for_something():
    found, false = 0, 0
    for seed in range(40):
        factors = {"bf16": 0.5, "channels_last": 0.7, "useless": 1.0, "worse": 1.3}
        bench = MadeUp(factors, noise=0.1, rng=np.random.default_rng(seed))
        search = searched(bench, *factors)
        found += {"bf16", "channels_last"} <= best(search)
        false += "worse" in best(search)
    assert found >= 36
    assert false <= 2
