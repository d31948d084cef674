import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from hf_accel.methods.losses import (
    balanced_class_weights,
    binary_cross_entropy_sum,
    cross_entropy_sum,
    focal_loss_sum,
    generalized_cross_entropy_sum,
    positive_weights,
    training_loss_sum,
)
from hf_accel.training.build import build_trainer


def test_the_sum_over_micro_batches_is_the_sum_over_the_batch():
    logits, labels = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    whole = cross_entropy_sum(logits, labels, weights, label_smoothing=0.1)
    parts = [cross_entropy_sum(logits[rows], labels[rows], weights, 0.1) for rows in (slice(0, 5), slice(5, 7))]
    torch.testing.assert_close(sum(parts), whole)


def test_soft_labels_are_probabilities_of_one_class_each():
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 2])
    soft = functional.one_hot(labels, 4).float()
    torch.testing.assert_close(cross_entropy_sum(logits, soft), cross_entropy_sum(logits, labels))
    mixed = 0.3 * soft + 0.7 * soft.roll(1, 0)
    expected = -(mixed * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(cross_entropy_sum(logits, mixed), expected)


def test_focal_loss_and_generalised_cross_entropy_are_those_of_their_papers():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 2, 2, 1])
    p = logits.softmax(-1)[torch.arange(5), labels]
    torch.testing.assert_close(focal_loss_sum(logits, labels, 2.0), (-((1 - p) ** 2) * p.log()).sum())
    torch.testing.assert_close(generalized_cross_entropy_sum(logits, labels, 0.7), ((1 - p**0.7) / 0.7).sum())


def test_both_losses_reach_the_cross_entropy_at_the_end_of_their_range():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 2, 2, 1])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    whole = cross_entropy_sum(logits, labels, weights, label_smoothing=0.1)
    torch.testing.assert_close(focal_loss_sum(logits, labels, 0.0, weights, 0.1), whole)
    near = generalized_cross_entropy_sum(logits, labels, 1e-4, weights, 0.1)
    torch.testing.assert_close(near, whole, rtol=1e-3, atol=1e-3)


def test_the_losses_take_soft_labels_and_have_finite_gradients_at_certain_rows():
    soft = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]])
    for loss in (lambda x, y: focal_loss_sum(x, y, 0.5), lambda x, y: generalized_cross_entropy_sum(x, y, 0.7)):
        logits = torch.tensor([[0.2, -0.1, 0.0], [0.0, 0.0, 200.0]], requires_grad=True)
        hard = [loss(logits[:1], torch.tensor([k])) for k in range(2)]
        torch.testing.assert_close(loss(logits[:1], soft[:1]), 0.3 * hard[0] + 0.7 * hard[1])
        loss(logits, soft).backward()
        assert logits.grad.isfinite().all()


def test_a_recipe_chooses_the_loss():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 2, 2, 1])
    chosen = [training_loss_sum(logits, labels, None, 0.0, methods) for methods in
              ({}, {"focal_gamma": 2.0}, {"generalized_cross_entropy": 0.7})]  # fmt: skip
    expected = [cross_entropy_sum(logits, labels), focal_loss_sum(logits, labels, 2.0),
                generalized_cross_entropy_sum(logits, labels, 0.7)]  # fmt: skip
    assert chosen == expected


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = balanced_class_weights(torch.from_numpy(labels), 3)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(weights[torch.from_numpy(labels)].mean().item(), 1, rtol=1e-6)


def test_balanced_weights_are_one_line_of_a_recipe(tiny_recipe, photos):
    for number in range(6):
        (photos / "train" / "red" / f"{number:02}.png").unlink()
    trainer = build_trainer(tiny_recipe({"data": {"class_weights": "balanced", "validation": 0}}))
    torch.testing.assert_close(trainer.class_weights, torch.tensor([18 / 24, 18 / 12]))


def test_classes_without_rows_do_not_lower_the_balanced_weights_of_the_others():
    labels = torch.tensor([0, 0, 0, 2, 2, 5])
    weights = balanced_class_weights(labels, 7)
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 5]), y=labels.numpy())
    np.testing.assert_allclose(weights[[0, 2, 5]].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(weights[labels].mean().item(), 1, rtol=1e-6)
    assert weights[[1, 3, 4, 6]].tolist() == [1.0] * 4


def test_the_loss_of_labels_that_do_not_exclude_each_other_is_that_of_transformers():
    logits, labels = torch.randn(7, 4), torch.randint(0, 2, (7, 4))
    upstream = torch.nn.BCEWithLogitsLoss()(logits, labels.float())
    torch.testing.assert_close(binary_cross_entropy_sum(logits, labels) / 7, upstream)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    weighted = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, labels * 0.8 + 0.1)
    torch.testing.assert_close(binary_cross_entropy_sum(logits, labels, weights, 0.2) / 7, weighted)
    parts = [binary_cross_entropy_sum(logits[rows], labels[rows], weights) for rows in (slice(0, 5), slice(5, 7))]
    torch.testing.assert_close(sum(parts), binary_cross_entropy_sum(logits, labels, weights))


def test_balanced_weights_give_rows_with_and_without_a_label_the_same_sum():
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    weights = positive_weights("mine", "balanced", labels)
    assert weights.tolist() == [3.0, 3.0, 1.0]  # all rows have the last label
    assert positive_weights("mine", None, labels) is None
    assert positive_weights("mine", [1, 2, 3], labels).tolist() == [1, 2, 3]
