import math

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_accel.methods.distillation import Distillation, class_order, distillation_sum
from hf_accel.methods.losses import cross_entropy_sum


class Teacher(nn.Module):
    """Gives the same logits to every image, and keeps what it saw."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.seen = None

    def forward(self, pixel_values):
        self.seen = pixel_values
        return ImageClassifierOutput(logits=self.logits.expand(len(pixel_values), -1))


def student_of(teacher, order, weight=0.25, temperature=3.0):
    method = Distillation("teacher", teacher, order, lambda inputs: inputs, weight, temperature)
    method.before_forward(torch.arange(4), {"pixel_values": torch.zeros(4, 3, 8, 8)})
    return method


def test_the_gradient_of_the_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    method = student_of(Teacher([1.0, -2.0, 0.5]), [0, 1, 2])
    method.loss_sum(logits, labels, cross_entropy_sum(logits, labels)).backward()
    student, softened = logits.detach().softmax(-1), (logits.detach() / 3).softmax(-1)
    teacher = (torch.tensor([1.0, -2.0, 0.5]) / 3).softmax(-1)
    # d CE / d z = p - y, and d T^2 KL(q || p_T) / d z = T (p_T - q)
    expected = 0.75 * (student - nn.functional.one_hot(labels, 3)) + 0.25 * 3 * (softened - teacher)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-6)


def test_the_distance_is_summed_by_the_definition_of_kullback_and_leibler():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]])
    p, q = [1 / (1 + math.exp(-0.5)), 1 - 1 / (1 + math.exp(-0.5))], [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]
    expected = 4 * sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert distillation_sum(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_teachers_classes_are_put_into_the_order_of_the_students():
    order = class_order(["c", "a", "b"], ["a", "b", "c"])
    logits = torch.tensor([[2.0, 3.0, 1.0]] * 4)
    same = student_of(Teacher([1.0, 2.0, 3.0]), order, weight=1.0).loss_sum(logits, torch.zeros(4), torch.tensor(9.0))
    other = student_of(Teacher([1.0, 2.0, 3.0]), [0, 1, 2], weight=1.0).loss_sum(
        logits, torch.zeros(4), torch.zeros(())
    )
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert other.item() > 0.1


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (["a", "b", "x"], "only the data has 'c' and only the teacher has 'x'"),
        (["a", "b", "c", "x", "y"], "only the teacher has 'x' and 1 more"),
        (["a"], "only the data has 'b' and 1 more"),
        (["a", "b", "c", "a"], "two classes of the same name"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_with_the_difference(teacher, words):
    with pytest.raises(ValueError, match=words):
        class_order(teacher, ["a", "b", "c"])


def test_the_teacher_neither_learns_nor_drops_anything_out():
    teacher = Teacher([1.0, 2.0]).train()
    method = student_of(teacher, [0, 1])
    logits = torch.zeros(4, 2, requires_grad=True)
    method.loss_sum(logits, torch.zeros(4), logits.sum()).backward()
    assert not teacher.training
    assert teacher.logits.grad is None
    assert not teacher.logits.requires_grad
