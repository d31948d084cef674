"""Which techniques apply to a recipe on a machine."""

from dataclasses import replace

import pytest

from hf_accel.config.recipe import RecipeFile, load_recipe
from hf_accel.tuning.candidates import Candidates, patch_of
from hf_accel.tuning.space import CHANGES, LeftOut, Pace, Technique, techniques
from tests.support.made_up_speeds import FACTS

CPU = replace(FACTS, train_rows=45_000, fill_seconds_per_row=1e-4)
GPU = replace(CPU, device="cuda", cores=16)
LONG = Pace(run_seconds=3600.0, data_wait=0.2)


def found(recipe="resnet50_cifar10", facts=CPU, pace=LONG, objective="time", allowed=(), overrides=None):
    """Names of the techniques, and the reasons of those that are left out."""
    tried, left_out = techniques(load_recipe(recipe, overrides=overrides), facts, pace, objective, allowed)
    return {one.name: one for one in tried}, {one.name: one.reason for one in left_out}


def test_a_machine_without_native_bf16_is_not_offered_any():
    slow = replace(CPU, mixed_precision=False, precision_reason="Old CPU has neither")
    tried, left_out = found(facts=slow)
    assert not {"mixed_precision", "fp32", "cpu_kernels", "library_kernels"} & tried.keys()
    assert left_out["bf16"] == "Old CPU has neither"
    tried, _ = found(facts=slow, overrides={"training": {"bf16": True}})
    assert tried["fp32"].patch == {"training": {"bf16": False}}


def test_each_technique_changes_what_the_recipe_has():
    baseline = {"model": {"channels_last": False}, "training": {"bf16": False, "optim": "adamw_torch"}}
    tried, _ = found(overrides=baseline)
    assert {"mixed_precision", "channels_last", "fused_optimizer", "compile"} <= tried.keys()
    tried, _ = found()
    assert {"fp32", "contiguous", "plain_optimizer"} <= tried.keys()


def test_a_smaller_micro_batch_keeps_the_effective_batch_and_needs_leave_with_batch_norm():
    tried, left_out = found()
    assert "micro_batch_64" not in tried
    assert left_out["micro_batch_64"].endswith("--allow batch")
    tried, _ = found(allowed=("batch",))
    assert tried["micro_batch_64"].patch["training"] == {
        "per_device_train_batch_size": 64,
        "gradient_accumulation_steps": 2,
    }
    tried, _ = found(facts=replace(CPU, batch_norm=False))
    assert tried["micro_batch_32"].changes is None
    tried, _ = found(
        facts=replace(CPU, batch_norm=False),
        overrides={"training": {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 4}},
    )
    assert tried["micro_batch_32"].patch["training"]["gradient_accumulation_steps"] == 2


def test_other_images_need_leave():
    tried, left_out = found(facts=replace(CPU, image_size=224))
    assert left_out["image_size_160"].endswith(
        "it changes the size of the images, and so the result: --allow image_size"
    )
    assert left_out["no_augmentation"].endswith("--allow augmentation")
    assert not {one.axis for one in tried.values()} & {"image_size", "augmentation"}
    richer = {"data": {"augment": {"crop": "random_resized", "randaugment": {}, "mixup": 0.2}}}
    tried, _ = found(facts=replace(CPU, image_size=224), allowed=("image_size", "augmentation"), overrides=richer)
    assert [name for name in tried if name.startswith("image_size")] == ["image_size_160", "image_size_96"]
    assert tried["crop_and_flip"].patch == {"data": {"augment": {"randaugment": None, "mixup": 0.0}}}
    assert tried["no_augmentation"].patch["data"]["augment"]["crop"] == "none"
    tried, left_out = found("xlnet_amazon_polarity", facts=replace(CPU, image_size=None))
    assert not [name for name in (*tried, *left_out) if name.startswith(("image_size", "no_augmentation"))]


def test_a_short_run_is_not_compiled_and_one_that_waits_for_no_data_gets_no_workers():
    tried, left_out = found(pace=Pace(run_seconds=20.0, data_wait=0.001))
    assert "compile" not in tried
    assert "20.0 s" in left_out["compile"]
    assert not [name for name in tried if name.startswith("workers")]
    assert "0.1 %" in left_out["workers"]


def test_a_cache_is_offered_where_memory_can_hold_it():
    none = {"data": {"cache": "none"}}
    tried, _ = found(overrides=none)
    assert {"cache_memory", "cache_disk"} <= tried.keys()
    tried, left_out = found(overrides=none, facts=replace(CPU, cached_bytes_per_row=1e6))
    assert "cache_memory" not in tried
    assert "are free" in left_out["cache_memory"]
    assert "cache_device" in found(facts=GPU)[0]
    assert "cache_device" not in found(facts=replace(GPU, same_size=False))[0]


def test_checkpointing_is_for_memory():
    assert "checkpointing" in found(objective="memory")[0]
    assert "checkpointing" in found()[1]
    assert "keep_activations" in found(overrides={"training": {"gradient_checkpointing": True}})[0]


def test_other_numbers_of_threads_are_tried_on_a_cpu():
    eight = replace(CPU, cores=8, threads=8)
    assert found(facts=eight)[0]["cpu_threads_4"].patch == {"training": {"cpu_threads": 4}}
    assert "cpu_threads_8" not in found(facts=eight)[0]
    assert "cpu_threads_8" in found(facts=replace(eight, threads=1))[0]
    assert not [name for name in found(facts=replace(GPU, threads=8))[0] if name.startswith("cpu_threads")]
    assert not [name for name in found(facts=replace(CPU, cores=1, threads=1))[0] if name.startswith("cpu_threads")]


def test_an_attention_of_transformers_can_be_exchanged():
    tried, _ = found(facts=replace(CPU, attention="sdpa", convolutions=0.001))
    assert tried["attention_eager"].patch == {"model": {"args": {"_attn_implementation": "eager"}}}
    assert "channels_last" not in tried


@pytest.mark.parametrize("recipe", ["resnet50_cifar10", "vit_cifar10", "digits", "xlnet_amazon_polarity", "finetune"])
@pytest.mark.parametrize("facts", [CPU, GPU, replace(CPU, batch_norm=False, attention="sdpa")])
def test_every_technique_gives_a_recipe_that_is_valid_and_differs(recipe, facts):
    candidates = Candidates.read(recipe, None, {})
    if candidates.plain.model.task == "text-classification":
        facts = replace(facts, cached_bytes_per_row=None, fill_seconds_per_row=None, convolutions=0.0, image_size=None)
    tried, left_out = techniques(candidates.plain, facts, LONG, "memory", tuple(CHANGES))
    assert all(isinstance(one, Technique) for one in tried)
    assert all(isinstance(one, LeftOut) and one.reason for one in left_out)
    assert len({one.name for one in tried}) == len(tried)
    for one in tried:
        assert candidates.recipe([one]) != candidates.plain, one.name


def test_the_last_of_two_patches_counts():
    one = Technique("a", "a", {"training": {"x": 1, "y": 1}}, "")
    other = Technique("b", "b", {"training": {"y": 2}}, "")
    assert patch_of([one, other]) == {"training": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("training", "mixed_precision", "is_needed"),
    [
        ({"bf16": False}, True, False),
        ({"bf16": "auto"}, True, True),
        ({"bf16": "auto"}, False, False),
        ({"bf16": True}, False, True),
        ({"bf16": False, "torch_compile": True}, False, True),
    ],
)
def test_a_recipe_that_is_not_plain_fp32_needs_a_reference(training, mixed_precision, is_needed):
    overrides = {"training": training}
    candidates = Candidates(RecipeFile.read("digits"), None, overrides)
    reference = candidates.reference(mixed_precision)
    assert (reference is not None) == is_needed
    if reference is not None:
        assert (reference.training["bf16"], reference.training["torch_compile"]) == (False, False)
