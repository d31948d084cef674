"""What a Trainer leaves behind, for comparing two runs."""

import torch


def losses(trainer):
    """The logged losses, in their order."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer):
    """A copy of all tensors of the model."""
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def differing(first, second):
    """Names of the tensors of the first that are not bit for bit those of the second."""
    return {name for name, value in first.items() if not torch.equal(value, second[name])}


def assert_same_run(first, second):
    """Two runs ended with the same weights, losses, work and train accuracy, bit for bit."""
    assert not differing(weights(first), weights(second))
    assert losses(first) == losses(second)
    assert first.state.total_flos == second.state.total_flos
    assert first.train_accuracy() == second.train_accuracy()


def assert_same_but_for_rounding(first, second):
    """The same sums in another order: float32 rounds them differently, and the steps carry that on."""
    assert first.state.global_step == second.state.global_step
    torch.testing.assert_close(losses(second), losses(first), rtol=1e-4, atol=1e-5)
    for name, value in weights(first).items():
        torch.testing.assert_close(second.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
