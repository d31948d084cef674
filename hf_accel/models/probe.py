"""Which parameters a network has and does not use: DistributedDataParallel must know whether there are any."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unused_parameters(model: nn.Module, inputs: dict[str, Tensor]) -> list[str]:
    """Names of the trainable parameters on which the logits do not depend.

    The graph that autograd records of one forward pass in evaluation mode is walked, so nothing is computed backwards and
    no gradient is left behind.

    Args:
        model: a classifier, whose output has `logits`.
        inputs: arguments of the forward pass, on the model's device.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            logits = model(**inputs).logits
    finally:
        model.train(was_training)
    used, seen, nodes = set(), set(), [logits.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        used.add(id(getattr(node, "variable", None)))  # of AccumulateGrad, where the walk ends
        nodes += [following for following, _ in node.next_functions]
    return [name for name, value in model.named_parameters() if value.requires_grad and id(value) not in used]
