"""The object through which training, evaluation and prediction reach everything that is particular to images."""

import ast
import inspect
from pathlib import Path

import hf_accel
from hf_accel.tasks import TASKS
from hf_accel.training import build


def test_the_task_of_a_recipe_is_known(tiny_recipe):
    assert tiny_recipe().model.task in TASKS


def test_build_trainer_reaches_images_through_the_task_alone():
    tree = ast.parse(inspect.getsource(build))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if name.startswith(("hf_accel.inputs", "hf_accel.transforms"))]


def test_the_report_and_the_hub_get_their_images_from_the_task():
    reading = ("hf_accel.data", "hf_accel.inputs", "hf_accel.transforms", "hf_accel.models")
    package = Path(hf_accel.__file__).parent
    files = [*(package / "report").glob("*.py"), *(package / "hub").glob("*.py")]
    assert len(files) > 15
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in modules if name.startswith(reading)], file


def test_the_operations_of_a_row_are_those_of_the_models_own_size_unless_its_batch_says_otherwise(tiny_recipe):
    recipe = tiny_recipe(
        {"data": {"progressive_resizing": {"start": 8, "full_at": 1.0}}, "training": {"num_train_epochs": 2}}
    )
    trainer = build.build_trainer(recipe)
    assert trainer.flops_of_row({}) == trainer.flops_of_row({"side": 16}) == trainer.flops_per_image
    assert trainer.flops_of_row({"side": 8}) < trainer.flops_per_image / 3
