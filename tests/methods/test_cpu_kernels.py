"""The replaced operations compute what PyTorch's own compute, and memory that is freed stays."""

import os
import subprocess
import sys

import pytest
import timm
import torch
from torch.nn import functional

from hf_accel.methods.cpu_kernels import CpuKernels, DepthwiseConv2d, plain_attention
from hf_accel.training.build import build_trainer


@pytest.fixture
def replaced(monkeypatch):
    """Counts how often an operation is replaced."""
    counts = {"depthwise": 0, "attention": 0}

    def count(name, function):
        def counted(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return counted

    module = "hf_accel.methods.cpu_kernels"
    monkeypatch.setattr(f"{module}.DepthwiseConv2d.apply", count("depthwise", DepthwiseConv2d.apply))
    monkeypatch.setattr(f"{module}.plain_attention", count("attention", plain_attention))
    return counts


def gradients(model, x, kernels=None, dtype=torch.bfloat16):
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    with kernels or torch.enable_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        out = model(x)
        out.float().square().mean().backward()
    return out.float(), [x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        (16, 3, 2, 1),
        (15, 3, 2, 1),
        (14, 5, 1, 2),
        (13, 5, 2, 2),
        (9, 7, 1, 3),
        (11, (5, 3), (2, 1), (0, 1)),
        (12, 3, 3, 0),
    ],
)
def test_a_depthwise_convolution_has_the_gradients_of_the_library_in_fp32(
    side, kernel, stride, padding, bias, replaced
):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(24, 24, kernel, stride, padding, groups=24, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(4, 24, side, side).to(memory_format=torch.channels_last)
    out, found = gradients(conv, x, CpuKernels())
    expected_out, expected = gradients(conv, x, dtype=None)
    assert replaced["depthwise"] == 1
    torch.testing.assert_close(out, expected_out, rtol=0.02, atol=0.02)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == exact.dtype
        assert (ours - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("scale", [None, 0.3])
def test_plain_attention_is_fused_attention(scale, replaced):
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, 17, 8, requires_grad=True) for _ in range(3)]
    narrow = [t.detach().bfloat16().requires_grad_() for t in exact]
    expected = functional.scaled_dot_product_attention(*exact, scale=scale)
    with CpuKernels():
        out = functional.scaled_dot_product_attention(*narrow, scale=scale)
    assert replaced["attention"] == 1
    for total in (expected.square().sum(), out.float().square().sum()):
        total.backward()
    assert (out - expected).norm() < 0.02 * expected.norm()
    for ours, reference in zip(narrow, exact, strict=True):
        assert (ours.grad - reference.grad).norm() < 0.03 * reference.grad.norm()


@pytest.mark.parametrize(
    ("name", "kind"), [("test_efficientnet", "depthwise"), ("test_vit", "attention"), ("test_mambaout", "depthwise")]
)
def test_a_network_in_bf16_is_as_near_to_fp32_as_without(name, kind, replaced):
    torch.manual_seed(0)
    model = (
        timm.create_model(name, num_classes=5, img_size=64) if "vit" in name else timm.create_model(name, num_classes=5)
    )
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 64, 64)
    _, exact = gradients(model, x, dtype=None)
    _, library = gradients(model, x)
    assert replaced[kind] == 0
    _, ours = gradients(model, x, CpuKernels())
    assert replaced[kind] > 0
    distance = lambda found: sum((a - b).square().sum() for a, b in zip(found, exact, strict=True)).sqrt()  # noqa: E731
    assert distance(ours) < 1.2 * distance(library)


def test_other_operations_are_left_alone(replaced):
    x, weight = torch.randn(2, 8, 9, 9), torch.randn(8, 1, 3, 3)
    query = torch.randn(1, 2, 5, 4, dtype=torch.bfloat16)
    with CpuKernels():
        functional.conv2d(x, weight, None, 2, 1, 1, 8)  # fp32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            functional.conv2d(x, weight, None, 1, 1, 1, 8)  # 3x3, not strided
            functional.conv2d(x, torch.randn(8, 8, 3, 3), None, 2, 1)  # not depthwise
        functional.scaled_dot_product_attention(query, query, query, is_causal=True)
        functional.scaled_dot_product_attention(query, query, query, attn_mask=torch.zeros(5, 5, dtype=torch.bfloat16))
        functional.scaled_dot_product_attention(*(torch.randn(1, 1, 600, 4, dtype=torch.bfloat16),) * 3)
        functional.scaled_dot_product_attention(*(query.float(),) * 3)
    assert replaced == {"depthwise": 0, "attention": 0}


FAULTS = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from hf_accel.machine.allocator import keep_freed_memory
    print(keep_freed_memory(), file=sys.stderr)
torch.set_num_threads(1)
for number in range(40):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str, **env: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | env
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, what], capture_output=True, text=True, env=environment, check=True
    )
    return int(done.stdout), done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_a_step_freed_is_not_mapped_again():
    given_back, _ = page_faults("leave")
    kept, answer = page_faults("keep")
    assert answer == "None"
    assert kept < given_back / 5
    _, answer = page_faults("keep", MALLOC_ARENA_MAX="2")
    assert answer == "MALLOC_ARENA_MAX is set"


@pytest.mark.slow
def test_a_transformer_trains_in_bf16_with_gradient_checkpointing(tiny_recipe):
    # the forward pass that checkpointing repeats did not have the replaced attention: CheckpointError
    vit = {"name": "timm/vit_tiny_patch16_224", "channels_last": False,
           "args": {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}}  # fmt: skip
    trainer = build_trainer(tiny_recipe({"model": vit, "training": {"bf16": True, "gradient_checkpointing": True}}))
    trainer.train()
    assert not any(isinstance(method, CpuKernels) for method in trainer.methods)
    assert trainer.state.global_step == 3
