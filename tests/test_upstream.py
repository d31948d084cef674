"""The list of the libraries' faults: the document is made from it, its tests exist, and a recipe gets its own."""

import ast
from pathlib import Path

import pytest

from hf_accel.config.recipe import load_recipe
from hf_accel.upstream import FAULTS, TRANSFORMERS_JS, Fault, faults_of, faults_page

ROOT = Path(__file__).parents[1]
NEWEST = {"torch": "99", "transformers": "99", "accelerate": "99", "evaluate": "99"}


def links_for(name, overrides=None, versions=NEWEST):
    return {fault.link for fault in faults_of(load_recipe(name, overrides=overrides), versions) if fault.link}


def test_the_document_is_the_one_that_the_list_gives():
    assert (ROOT / "docs" / "upstream.md").read_text("utf-8") == f"{faults_page()}\n"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.sentence[:40])
def test_the_tests_of_a_fault_exist(fault):
    assert fault.tests
    for file in fault.tests:
        assert (ROOT / file).is_file()
    if fault.watch:
        file, name = fault.watch.split("::")
        functions = ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        assert name in {node.name for node in functions if isinstance(node, ast.FunctionDef)}
    if fault.link:
        assert fault.link.startswith("https://github.com/")
    else:
        assert "|" not in fault.what  # nothing to set a link on


def test_every_test_that_looks_for_a_fault_is_named_by_the_list():
    named = {fault.watch.split("::")[1] for fault in FAULTS if fault.watch}
    found = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_upstream_still_")
    }
    assert found
    assert found <= named


def test_a_recipe_is_told_of_the_faults_that_it_can_meet():
    accumulation, encoder = (f"https://github.com/huggingface/transformers/issues/{n}" for n in (47688, 48805))
    batch_norm = "https://github.com/pytorch/pytorch/issues/96136"
    assert encoder in links_for("vit_cifar10")
    assert accumulation not in links_for("vit_cifar10", {"training": {"gradient_accumulation_steps": 1}})
    assert accumulation in links_for("vit_cifar10", {"training": {"gradient_accumulation_steps": 4}})
    timm = links_for("resnet50_cifar10", {"training": {"gradient_accumulation_steps": 4}})
    assert {accumulation, encoder}.isdisjoint(timm)
    assert batch_norm not in timm
    assert batch_norm in links_for("resnet50_cifar10", {"training": {"gradient_checkpointing": True}})


def test_a_folder_of_a_timm_model_is_one(tmp_path):
    encoder = "https://github.com/huggingface/transformers/issues/48805"
    overrides = {"model": {"name": str(tmp_path)}}
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTForImageClassification"]}')
    assert encoder in links_for("vit_cifar10", overrides)
    for config in ('{"architecture": "resnet18"}', '{"model_type": "timm_wrapper"}'):
        (tmp_path / "config.json").write_text(config)
        assert encoder not in links_for("vit_cifar10", overrides)


def test_a_library_that_runs_elsewhere_concerns_recipes_that_export():
    def libraries(overrides):
        return {fault.library for fault in faults_of(load_recipe("resnet50_cifar10", overrides=overrides), {})}

    assert libraries({"compress": {}}) == {TRANSFORMERS_JS}
    assert libraries({}) == set()


def test_a_version_that_is_fixed_or_absent_has_no_fault():
    fault = Fault("torch", "2.1.0", "it fails", "it does not", ("x",), lambda recipe: True, fixed_in="2.2")
    assert fault.is_in("2.1.9")
    assert not fault.is_in("2.2.0")
    assert not fault.is_in("2.10")
    assert faults_of(load_recipe("vit_cifar10"), {}) == []
