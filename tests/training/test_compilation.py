"""torch.compile: batches of any size, and a run that continues where nothing can be compiled, and says so."""

import functools
import re
import shutil

import pytest
import torch
import torch._dynamo
from torch._dynamo.backends import registry
from torch._dynamo.utils import counters

from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.report.run_report import RunReport
from hf_accel.train import main, train
from hf_accel.training.build import build_trainer

pytestmark = pytest.mark.slow

SMALLEST = {"model": {"args": {"depth": 8, "width": 2}}}


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    """Compiled code belongs to the process and is found again by the next test."""
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def backend(monkeypatch):
    """`aot_eager`, which compiles without a compiler, fails from the graph of this number on; gives the graphs seen."""
    graphs = []

    def fail_from(number):
        working = registry.lookup_backend("aot_eager")

        @functools.wraps(working)
        def compile_or_fail(graph, inputs):
            graphs.append(graph)
            if len(graphs) >= number:
                raise RuntimeError("no such instruction")
            return working(graph, inputs)

        monkeypatch.setitem(registry._COMPILER_FNS, "aot_eager", compile_or_fail)
        return graphs

    return fail_from


def said_of_compilation(report, capsys):
    assert report.train.compile_seconds is None
    assert not [name for name in report.settings if name.startswith("torch_compile")]
    (note,) = [note for note in report.notes if "torch_compile" in note]
    assert (report.train.compiled, report.train.compile_failure) == (False, note)
    shown = capsys.readouterr().err.splitlines()
    own = [line for line in shown if not re.match(r"[CEW]\d{4} ", line)]  # torch's log, which other tests switch on
    assert [line for line in own if "torch_compile" in line or "Error" in line] == [note]
    return note


def test_without_a_compiler_a_run_is_eager_and_says_so(tiny_recipe, tmp_path, capsys):
    import torch._inductor.config as inductor

    missing = {"cpp.cxx": (None, "/nowhere/g++"), "force_disable_caches": True}
    with inductor.patch(missing):
        recipe = tiny_recipe(SMALLEST, {"training": {"torch_compile": True, "output_dir": str(tmp_path / "compiled")}})
        compiled = RunReport.load(train(recipe))
    note = said_of_compilation(compiled, capsys)
    assert "/nowhere/g++" in note
    assert "from step 1 on" in note
    eager = RunReport.load(train(tiny_recipe(SMALLEST)))
    assert compiled.test == eager.test
    assert compiled.train.final_loss == eager.train.final_loss


def test_a_graph_that_fails_later_ends_the_compilation_and_not_the_run(tiny_recipe, backend, capsys):
    graphs = backend(2)
    training = {"torch_compile": True, "torch_compile_backend": "aot_eager", "num_train_epochs": 2}
    report = RunReport.load(train(tiny_recipe({"training": training})))
    note = said_of_compilation(report, capsys)
    assert "from step 3 on" in note  # 19 rows in batches of 8: the third is shorter
    assert "no such instruction" in note
    assert len(graphs) == 2
    assert report.train.steps == 6


def test_an_error_that_is_not_the_compilers_is_raised(tiny_recipe):
    trainer = build_trainer(tiny_recipe({"training": {"torch_compile": True, "torch_compile_backend": "eager"}}))
    trainer.train_transform = lambda batch: {"pixel_values": torch.zeros(2, 5, 16, 16), "labels": batch["labels"]}
    with pytest.raises(RuntimeError, match="channels"):
        trainer.train()


def test_a_shorter_last_batch_is_compiled_once_more_and_not_every_epoch(tiny_recipe, tmp_path):
    def trained(name, **training):
        training |= {"num_train_epochs": 4, "logging_steps": 1, "output_dir": str(tmp_path / name)}
        trainer = build_trainer(tiny_recipe({"training": training}))
        assert len(trainer.train_dataset) % 8 == 3
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    eager = trained("eager")
    compiled = trained("compiled", torch_compile=True, torch_compile_backend="aot_eager")
    assert counters["stats"]["unique_graphs"] == 2
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_inductor_trains_batches_of_two_sizes_to_the_loss_of_an_eager_run(tiny_recipe, tmp_path):
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 0, "num_heads": 1}  # no block: few kernels
    vit = {"model": {"name": "timm/vit_tiny_patch16_224", "args": size}}

    def loss(name, **training):
        training |= {"num_train_epochs": 2, "output_dir": str(tmp_path / name)}
        return RunReport.load(train(tiny_recipe(vit, {"training": training}))).train

    compiled, eager = loss("compiled", torch_compile=True), loss("eager")
    assert compiled.compile_seconds > 0
    assert eager.compile_seconds is None
    assert compiled.final_loss == pytest.approx(eager.final_loss, rel=1e-3)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"torch_compile_backend": "inducter"}, "Did you mean inductor"),
        ({"torch_compile": True, "torch_compile_mode": "max-autotun"}, "Did you mean max-autotune"),
    ],
)
def test_an_unknown_backend_or_mode_is_refused(tiny_recipe, training, message):
    recipe = tiny_recipe({"training": training})
    with pytest.raises(UserError, match=message):
        build_trainer(recipe)
    assert not recipe.output_dir.exists()


def test_compilation_is_a_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--max_steps", "5", "--torch_compile", "true", "--torch_compile_backend", "aot_eager"]
    assert run(main, ["--recipe", "digits", "--data.max_train_rows", "60", *flags]) == 0
    report = RunReport.load(tmp_path / "outputs" / "digits" / "default")
    assert report.train.compile_seconds > 0
    assert report.train.compiled is True
    assert report.settings["torch_compile"] is True
