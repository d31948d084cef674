"""Single operators: their operations, their bytes, and which limit is theirs."""

import pytest
import torch
from torch import nn

from hf_accel.profiling.facts import facts_of
from hf_accel.profiling.operators import OperatorTimer, group_of, totals
from hf_accel.profiling.trace import join_traced
from hf_accel.profiling.verdict import verdict

PEAKS = {
    "matrix_flops_per_second": {"float32": 1e9, "bfloat16": 1e9},
    "copy_bytes_per_second": 1e9,
}  # ridge: 1 per byte
TIMES = {"input": 0.0, "network": 100.0, "optimizer": 1.0, "loop": 1.0, "saving": 0.0, "evaluation": 0.0, "once": 0.0}


def timed_step(model, inputs):
    timer = OperatorTimer(torch.device("cpu"), PEAKS["matrix_flops_per_second"], PEAKS["copy_bytes_per_second"])
    model(inputs).sum().backward()
    with timer:
        model(inputs).sum().backward()
    return timer.operators()


def bound_of(operators):
    """The verdict on a run that is nothing but these operators."""
    seconds = totals(operators)["seconds"]
    step = {"forward": seconds / 2, "backward": seconds / 2}
    return verdict(facts_of(TIMES, step, [operator.to_dict() for operator in operators], PEAKS)).bound


class Elementwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        for _ in range(4):
            inputs = torch.relu(inputs * self.weight)
        return inputs


def test_matrix_products_are_bound_by_compute():
    operators = timed_step(nn.Sequential(*[nn.Linear(512, 512, bias=False) for _ in range(4)]), torch.randn(512, 512))
    assert bound_of(operators) == "compute"
    products = [operator for operator in operators if operator.group == "matrix product"]
    # forward, gradient of the weight, and gradient of the input but for the first layer
    assert sum(operator.flops for operator in products) == (4 + 4 + 3) * 2 * 512**3


def test_operators_that_move_memory_are_bound_by_its_bandwidth():
    assert bound_of(timed_step(Elementwise(), torch.randn(1024, 1024))) == "memory bandwidth"


def test_the_same_product_is_bound_by_what_the_machine_lacks():
    operators = timed_step(nn.Linear(64, 64, bias=False), torch.randn(64, 64))
    product = next(operator for operator in operators if operator.name == "mm")
    assert product.compute_seconds == product.seconds
    timer = OperatorTimer(torch.device("cpu"), {"float32": 1e15, "bfloat16": 1e15}, 1e6)
    with timer:
        torch.randn(64, 64) @ torch.randn(64, 64)
    assert next(operator for operator in timer.operators() if operator.name == "mm").compute_seconds == 0


def test_views_are_not_operators_and_each_tensor_counts_once_per_call():
    timer = OperatorTimer(torch.device("cpu"), {}, None)
    inputs = torch.ones(8, 4)
    with timer:
        inputs.view(4, 8).t().add_(1)
    (added,) = timer.operators()
    assert (added.name, added.calls, added.moved_bytes) == ("add_", 1, 2 * 32 * 4)


def test_an_expanded_tensor_has_the_bytes_of_its_own_elements():
    timer = OperatorTimer(torch.device("cpu"), {}, None)
    with timer:
        torch.ones(1, 4).expand(1000, 4) + 1
    added = next(operator for operator in timer.operators() if operator.name == "add")
    assert added.moved_bytes == (4 + 4000) * 4


def test_attention_on_a_cpu_has_operations():
    timer = OperatorTimer(torch.device("cpu"), {}, None)
    query = torch.randn(2, 3, 16, 8, requires_grad=True)
    with timer:
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    found = {operator.name: operator for operator in timer.operators() if operator.group == "attention"}
    forward = 4 * 2 * 3 * 16 * 16 * 8
    assert sorted(operator.flops for operator in found.values()) == [forward, 2.5 * forward]


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_backward_pass_of_a_convolution_costs_two_forward_passes_whatever_its_groups(kind, groups):
    timer = OperatorTimer(torch.device("cpu"), {}, None)
    convolution = kind(8, 8, 3, padding=1, bias=False, groups=groups)
    inputs = torch.randn(2, 8, 6, 6, requires_grad=True)
    with timer:
        convolution(inputs).sum().backward()
    found = {operator.name: operator.flops for operator in timer.operators()}
    assert found["convolution"] == 2 * 2 * 36 * 8 * 8 // groups * 9
    assert found["convolution_backward"] == 2 * found["convolution"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("convolution_backward", "convolution"),
        ("native_layer_norm", "normalisation"),
        ("addmm", "matrix product"),
        ("_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("_to_copy", "conversion and copies"),
        ("gelu_backward", "elementwise and other"),
    ],
)
def test_operators_have_kinds(name, group):
    assert group_of(name) == group


def test_the_trace_of_an_operator_is_divided_among_its_types():
    rows = [
        {"name": "convolution", "seconds": 3.0},
        {"name": "convolution", "seconds": 1.0},
        {"name": "relu_", "seconds": 1.0},
    ]
    join_traced(rows, {"convolution": 8.0})
    assert [row["traced_seconds"] for row in rows] == [6.0, 2.0, None]
