"""The cost of a run: steps that count, gaps that do not, figures that a resume keeps, and None for those not measured."""

import itertools
import mmap
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_accel.machine import resources
from hf_accel.machine.resources import GIB, ResourceWatch, join_resources
from hf_accel.measure.steps import MeasureCallback, Measurement, StepsDone, Stopwatch
from hf_accel.report.history import history_from_log
from hf_accel.training.build import build_trainer
from hf_accel.training.finish import summarise_training

CPU = torch.device("cpu")
TIMING = {
    "seconds", "feature_seconds", "images_per_second", "step_seconds_median", "data_wait_fraction", "transform_fraction",
    "compile_seconds",
}  # fmt: skip
NONE_READ = {"peak_memory_gib": None, "peak_rss_gib": 1.0, "peak_anonymous_gib": 0.5, "read_bytes": 10,
             "energy_joules": None}  # fmt: skip


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A measurement, and a device that works by the fake clock."""

    def __init__(self, **settings) -> None:
        self.clock = Clock()
        self.measurement = Measurement(Stopwatch(CPU, self.clock), **settings)
        self.measurement.restart()

    def step(
        self,
        seconds: float,
        images: int = 8,
        wait: float = 0.0,
        transforms: tuple[float, ...] = (),
        side: int | None = None,
    ) -> None:
        """One optimizer step of `seconds`, in which it waits and transforms for the seconds given."""
        with self.measurement.waiting():
            self.clock.now += wait
        self.measurement.count_images(images, side)
        for transform in transforms:
            with self.measurement.transforming():
                self.clock.now += transform
        self.clock.now += seconds - wait - sum(transforms)
        self.measurement.step()

    def gap(self, seconds: float) -> None:
        """Evaluation or saving."""
        self.clock.now += seconds
        self.measurement.restart()


def test_the_first_three_steps_count_in_no_rate_but_in_the_total():
    run = Run()
    for seconds in (30.0, 5.0, 5.0, 2.0, 2.0):
        run.step(seconds, images=8)
    summary = run.measurement.summary()
    assert summary["seconds"] == pytest.approx(4.0)
    assert summary["images_per_second"] == pytest.approx(16 / 4)
    assert run.measurement.total_seconds() == pytest.approx(44.0)
    assert run.measurement.warmup_seconds == pytest.approx([30.0, 5.0, 5.0])


def test_time_between_steps_that_is_evaluation_or_saving_is_left_out():
    run = Run(warmup_steps=0)
    run.gap(50.0)
    run.step(1.0)
    run.gap(500.0)
    run.step(1.0)
    run.gap(70.0)
    assert run.measurement.total_seconds() == pytest.approx(2.0)


def test_a_step_that_was_begun_before_a_gap_leaves_nothing_in_the_next():
    run = Run(warmup_steps=0)
    with run.measurement.waiting():
        run.clock.now += 3.0
    run.measurement.count_images(8)
    run.gap(1.0)
    run.step(4.0, images=8, wait=1.0)
    summary = run.measurement.summary()
    assert summary["data_wait_fraction"] == pytest.approx(0.25)
    assert summary["images_per_second"] == pytest.approx(2.0)


def test_waiting_and_transforming_are_fractions_of_the_steps_that_count():
    run = Run(warmup_steps=1)
    run.step(10.0, wait=9.0, transforms=(0.5,))
    run.step(2.0, wait=0.5, transforms=(0.2, 0.2))
    run.step(2.0, wait=0.1, transforms=(0.2, 0.2))
    summary = run.measurement.summary()
    assert summary["data_wait_fraction"] == pytest.approx(0.6 / 4)
    assert summary["transform_fraction"] == pytest.approx(0.8 / 4)


def test_the_wait_is_read_on_the_devices_time_line(monkeypatch):
    """The host waits 5 s for a batch, and in 4 of them the device still works on the last one."""
    run, device = Run(warmup_steps=0), Clock()
    monkeypatch.setattr(run.measurement.stopwatch, "mark", device)
    run.measurement.restart()
    with run.measurement.waiting():
        run.clock.now += 5.0
        device.now += 1.0
    device.now += 4.0
    run.measurement.step()
    assert run.measurement.summary()["data_wait_fraction"] == pytest.approx(1 / 5)


@pytest.mark.gpu
def test_a_host_that_waits_while_the_gpu_works_is_not_starving_it():
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    measurement = Measurement(Stopwatch(device), warmup_steps=1)
    measurement.restart()
    for _ in range(4):
        with measurement.waiting():
            time.sleep(0.02)
        for _ in range(100):
            matrix @ matrix
        measurement.step()
    busy = measurement.summary()["data_wait_fraction"]
    starving = Measurement(Stopwatch(device), warmup_steps=0)
    starving.restart()
    for _ in range(4):
        with starving.waiting():
            time.sleep(0.02)
        torch.cuda.synchronize()
        starving.step()
    assert busy < 0.5 < starving.summary()["data_wait_fraction"]


def test_images_of_every_batch_in_an_accumulation_window_count_once():
    run = Run(warmup_steps=0)
    for _ in range(2):
        for _ in range(4):
            run.measurement.count_images(8)
        run.clock.now += 1.0
        run.measurement.step()
    assert run.measurement.summary()["images_per_second"] == pytest.approx(32.0)
    assert run.measurement.images == 64


def test_a_shorter_last_batch_counts_its_own_images():
    run = Run(warmup_steps=0)
    for images, seconds in ((8, 2.0), (8, 2.0), (3, 1.0)):
        run.step(seconds, images=images)
    assert run.measurement.summary()["images_per_second"] == pytest.approx(19 / 5)
    assert run.measurement.recent_images_per_second() == pytest.approx(19 / 5)


def test_the_median_step_ignores_one_slow_step():
    run = Run(warmup_steps=0)
    for seconds in (1.0, 1.2, 90.0, 1.1, 1.0):
        run.step(seconds)
    assert run.measurement.summary()["step_seconds_median"] == pytest.approx(1.1)


def test_the_recent_rate_is_that_of_the_last_20_steps():
    run = Run()
    run.step(9.0)
    assert run.measurement.recent_images_per_second() is None
    for _ in range(30):
        run.step(4.0, images=8)
    for _ in range(10):
        run.step(1.0, images=4)
    assert run.measurement.recent_images_per_second() == pytest.approx((10 * 8 + 10 * 4) / (10 * 4.0 + 10 * 1.0))


def test_compilation_is_the_time_of_the_warm_up_beyond_median_steps():
    run = Run(compiled=True)
    for seconds in (40.0, 1.0, 1.0, 1.0, 1.0):
        run.step(seconds)
    assert run.measurement.summary()["compile_seconds"] == pytest.approx(39.0)
    eager = Run()
    for seconds in (40.0, 1.0, 1.0, 1.0, 1.0):
        eager.step(seconds)
    assert eager.measurement.summary()["compile_seconds"] is None


def test_compiling_again_for_a_shorter_batch_is_not_training():
    run = Run(compiled=True)
    for _ in range(2):  # epochs of 5 batches of 8 and one of 3
        for seconds in (1.0,) * 5:
            run.step(seconds, images=8)
        run.step(0.5 if run.measurement.total_seconds() > 20 else 20.5, images=3)
    summary = run.measurement.summary()
    assert run.measurement.warmup_seconds == pytest.approx([1.0, 1.0, 1.0, 20.5])
    assert summary["seconds"] == pytest.approx(2 * 1.0 + 5 * 1.0 + 0.5)
    assert summary["images_per_second"] == pytest.approx((7 * 8 + 3) / 7.5)
    assert summary["compile_seconds"] == pytest.approx(19.5)


def test_compiling_again_for_larger_images_is_not_training():
    run = Run(compiled=True)
    for side, first in ((128, 1.0), (160, 30.0)):
        run.step(first, side=side)
        for _ in range(4):
            run.step(1.0, side=side)
    assert run.measurement.summary()["seconds"] == pytest.approx(6.0)
    assert run.measurement.warmup_seconds == pytest.approx([1.0, 1.0, 1.0, 30.0])


def test_a_shorter_batch_of_a_run_that_is_not_compiled_is_training():
    run = Run(warmup_steps=1)
    run.step(1.0, images=8)
    run.step(0.5, images=3)
    assert run.measurement.summary()["seconds"] == pytest.approx(0.5)


def test_a_figure_that_was_not_measured_is_none_and_never_0():
    run = Run(compiled=True)
    run.step(1.0)  # warm-up alone
    summary = run.measurement.summary()
    assert set(summary) == TIMING
    assert set(summary.values()) == {None}
    assert run.measurement.recent_images_per_second() is None
    loader = Run(warmup_steps=0)
    loader.step(1.0, wait=0.5)  # transformed by the loader
    assert loader.measurement.summary()["transform_fraction"] is None


def test_features_computed_before_the_first_step_count_as_training_once(tmp_path):
    def run(seconds):
        begun = Run(warmup_steps=0)
        if (tmp_path / "measurement_0.json").exists():
            begun.measurement.load(tmp_path)
        for part in (seconds - 1.0, 1.0):  # of the training rows, and of the classifier
            with begun.measurement.computing_features():
                begun.clock.now += part
        begun.measurement.restart()
        begun.step(1.0)
        return begun

    first = run(3.0)
    assert first.measurement.summary()["seconds"] == first.measurement.total_seconds() == 4.0
    assert first.measurement.summary()["images_per_second"] == 2.0
    assert first.measurement.summary()["step_seconds_median"] == 1.0
    first.measurement.save(tmp_path, NONE_READ)
    resumed = run(4.0)  # computes them again
    assert resumed.measurement.summary()["feature_seconds"] == 4.0
    assert resumed.measurement.summary()["seconds"] == 6.0


# resumes


def test_a_run_resumed_from_a_checkpoint_has_the_figures_of_an_uninterrupted_one(tmp_path):
    steps = [(2.0, 8, 0.5, (0.1,)), (1.0, 8, 0.1, (0.1,)), (1.0, 8, 0.2, (0.2,)), (0.5, 3, 0.1, (0.1,))]
    whole = Run(warmup_steps=0)
    for step in steps * 2:
        whole.step(*step)

    first = Run(warmup_steps=0)
    for step in steps:
        first.step(*step)
    first.measurement.save(tmp_path, NONE_READ)
    first.step(99.0)  # lost with the process, and done again
    second = Run(warmup_steps=0)
    second.clock.now = 5000.0
    second.measurement.load(tmp_path)
    second.measurement.restart()
    for step in steps:
        second.step(*step)

    assert second.measurement.resumes == 1
    assert second.measurement.summary() == pytest.approx(whole.measurement.summary())
    assert second.measurement.total_seconds() == pytest.approx(whole.measurement.total_seconds())
    assert [path.name for path in tmp_path.iterdir()] == ["measurement_0.json"]


def test_each_process_of_a_run_warms_up_again_and_its_compilation_counts(tmp_path):
    first = Run(compiled=True)
    for seconds in (31.0, 1.0, 1.0, 1.0):
        first.step(seconds)
    first.measurement.save(tmp_path, NONE_READ)
    second = Run(compiled=True)
    second.measurement.load(tmp_path)
    assert second.measurement.recent_images_per_second() is None
    for seconds in (21.0, 1.0, 1.0, 1.0):
        second.step(seconds)
    summary = second.measurement.summary()
    assert summary["seconds"] == pytest.approx(2.0)
    assert summary["compile_seconds"] == pytest.approx(50.0)
    assert second.measurement.total_seconds() == pytest.approx(58.0)


def test_a_checkpoint_of_another_trainer_starts_the_sums_from_zero(tmp_path):
    run = Run()
    run.measurement.load(tmp_path)
    assert run.measurement.resumes == 1
    assert run.measurement.total_seconds() == 0


def test_every_rank_continues_from_its_own_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        run = Run(warmup_steps=0)
        run.step(1.0 + rank)
        run.measurement.save(tmp_path / "checkpoint-1", NONE_READ)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        run = Run()
        run.measurement.load(tmp_path / "checkpoint-1")
        assert run.measurement.total_seconds() == 1.0 + rank


def test_stretches_of_a_run_add_up_bytes_and_energy_and_keep_the_larger_peak():
    first = {"peak_rss_gib": 3.0, "peak_memory_gib": 7.0, "read_bytes": 100, "energy_joules": 50.0}
    second = {"peak_rss_gib": 2.0, "peak_memory_gib": 8.0, "read_bytes": 11, "energy_joules": None}
    assert join_resources(first, second) == {
        "peak_rss_gib": 3.0,
        "peak_memory_gib": 8.0,
        "read_bytes": 111,
        "energy_joules": None,  # half of it would look like all of it
    }
    assert join_resources({}, second) == second
    assert join_resources(second, first)["energy_joules"] is None


def test_the_callback_carries_bytes_energy_and_peaks_over_a_resume(tmp_path, monkeypatch):
    counters = {"bytes": 1000, "joules": 400.0, "anonymous": 4 * GIB}
    monkeypatch.setattr(resources, "bytes_read", lambda: counters["bytes"])
    monkeypatch.setattr(resources, "energy_joules", lambda device: counters["joules"])
    monkeypatch.setattr(resources, "anonymous_bytes", lambda: counters["anonymous"])
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    event = (args, TrainerState(global_step=5), TrainerControl())

    cut = MeasureCallback(Run().measurement, CPU)
    cut.on_train_begin(*event)
    counters.update(bytes=1300, joules=430.0)
    cut.save(tmp_path / "checkpoint-5")
    counters.update(bytes=9999, joules=9999.0)  # after the checkpoint: lost
    cut.resources.stop()

    counters.update(bytes=70, joules=5.0, anonymous=GIB)  # another process, perhaps another machine
    resumed = MeasureCallback(Run().measurement, CPU)
    resumed.measurement.load(tmp_path / "checkpoint-5")
    resumed.on_train_begin(*event)
    counters.update(bytes=80, joules=7.0)
    resumed.save(tmp_path / "checkpoint-9")
    counters.update(bytes=90, joules=8.0)
    resumed.on_train_end(*event)
    figures = resumed.measurement.resources
    assert figures["read_bytes"] == 300 + 20
    assert figures["energy_joules"] == pytest.approx(30.0 + 3.0)
    assert figures["peak_anonymous_gib"] == pytest.approx(4.0)
    again = Run().measurement
    again.load(tmp_path / "checkpoint-9")
    assert again.resources["read_bytes"] == 300 + 10


def test_steps_of_all_processes_of_a_run_are_counted_and_a_new_run_starts_at_0(tmp_path):
    file = tmp_path / "run" / "steps"

    def process(begins_at, does):
        counted = StepsDone(file, begins_at)
        for _ in range(does):
            counted.add()
        return counted.count

    assert process(0, 10) == 10
    assert process(8, 1) == 11  # killed after step 10, and again after step 9
    assert process(8, 4) == 15
    assert process(0, 2) == 2
    file.write_bytes(b"")
    assert process(6, 1) == 7
    file.unlink()
    assert process(6, 1) == 7


# over ranks


def test_rates_are_summed_over_ranks_and_seconds_are_the_slowest_ranks(monkeypatch):
    run = Run(warmup_steps=0)
    for _ in range(4):
        run.step(1.0, images=8, wait=0.1)
    run.measurement.resources = {**NONE_READ, "energy_joules": 30.0}

    def gather(own: list[dict]) -> list[dict]:
        other = {"seconds": 5.0, "images_per_second": 6.4, "peak_rss_gib": 3.0, "read_bytes": 5, "energy_joules": 40.0}
        return [*own, {**own[0], **other}]

    monkeypatch.setattr("hf_accel.training.finish.gather_object", gather)
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=2),
        is_fsdp_enabled=False,
        is_deepspeed_enabled=False,
        get_total_train_batch_size=lambda args: 16,
        finite_steps=SimpleNamespace(skipped=0),
        smaller_batches=None,
        state=TrainerState(global_step=4, epoch=1.0, log_history=[{"loss": 2.0}, {"loss": 1.0}]),
        measurement=run.measurement,
    )
    summary = summarise_training(trainer, accuracy=0.5)
    assert summary.images_per_second == pytest.approx(8.0 + 6.4)
    assert summary.seconds == 5.0
    assert summary.parallel == "ddp"
    assert summary.data_wait_fraction == pytest.approx(0.1)
    assert summary.transform_fraction is None
    assert (summary.peak_rss_gib, summary.read_bytes, summary.energy_joules) == (3.0, 15, 70.0)
    assert summary.peak_memory_gib is None
    assert (summary.effective_batch_size, summary.final_loss, summary.accuracy) == (16, 1.0, 0.5)


# this machine

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@on_linux
def test_the_peak_of_anonymous_memory_rises_with_what_is_touched_and_given_back():
    watch = ResourceWatch(CPU)
    watch.start()
    before = watch.figures()["peak_anonymous_gib"]
    block = mmap.mmap(
        -1, 200 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # new to the process, whatever the allocator kept
    block.write(b"1" * (200 * 2**20))
    deadline = time.monotonic() + 10
    while watch.peak_anonymous < before * GIB + 190 * 2**20 and time.monotonic() < deadline:
        time.sleep(0.02)
    block.close()
    watch.stop()
    assert watch.figures()["peak_anonymous_gib"] - before > 190 / 1024


@on_linux
def test_bytes_read_include_the_loaders_workers(monkeypatch):
    assert resources.bytes_read() >= 0
    monkeypatch.setattr(resources, "_proc_field", lambda pid, *_: {resources.os.getpid(): 7, 41: 30, 42: None}[pid])
    children = [SimpleNamespace(pid=41), SimpleNamespace(pid=42)]  # 42 has just ended
    monkeypatch.setattr(resources.psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: children))
    assert resources.bytes_read() == 37


def test_a_machine_without_proc_has_no_figures_instead_of_0(monkeypatch):
    monkeypatch.setattr(resources, "_proc_field", lambda *_: None)
    watch = ResourceWatch(CPU)
    watch.start()
    watch.stop()
    figures = watch.figures()
    assert [figures[name] for name in ("peak_anonymous_gib", "read_bytes", "energy_joules")] == [None] * 3


def test_a_second_start_leaves_one_thread():
    watch = ResourceWatch(CPU)
    watch.start()
    first = watch._thread
    watch.start()
    assert not first.is_alive()
    watch.stop()
    watch.stop()


def fake_pynvml(**functions) -> ModuleType:
    module = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {"GPU-abc": 12_500}[handle]
    for name, error in functions.items():

        def fail(*_, error=error):
            raise module.NVMLError(error)

        setattr(module, name, fail)
    return module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (fake_pynvml(), 12.5),
        (fake_pynvml(nvmlInit="Library Not Found"), None),
        (fake_pynvml(nvmlDeviceGetHandleByUUID="Not Found"), None),
        (fake_pynvml(nvmlDeviceGetTotalEnergyConsumption="Not Supported"), None),
        (None, None),  # the import fails
    ],
)
def test_energy_is_read_from_nvml_or_none(module, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    assert resources.energy_joules(torch.device("cuda", 0)) == expected


def test_a_cpu_has_no_energy_counter():
    assert resources.energy_joules(CPU) is None


@pytest.mark.slow
@pytest.mark.parametrize("transforms", ["device", "loader"])
def test_a_real_run_adds_up(tiny_recipe, transforms):
    recipe = tiny_recipe({"data": {"transforms": transforms}, "training": {"max_steps": 8, "logging_steps": 1}})
    trainer = build_trainer(recipe)
    begin = time.perf_counter()
    trainer.train()
    wall = time.perf_counter() - begin
    total = trainer.measurement.total_seconds()
    warmup = trainer.measurement.warmup_seconds
    figures, history = summarise_training(trainer, accuracy=None), history_from_log(trainer.state.log_history)
    assert len(warmup) == 3
    assert figures.seconds + sum(warmup) == pytest.approx(total)
    assert 0 < total < wall
    seconds = [row["seconds"] for row in history]
    assert len(seconds) == 8
    assert all(later > earlier for earlier, later in itertools.pairwise(seconds))
    assert seconds[-1] == pytest.approx(total, abs=1e-4)
    # 19 training images: two batches of 8 and one of 3 per epoch, and the first three steps are the warm-up
    assert figures.images_per_second * figures.seconds == pytest.approx(8 + 8 + 3 + 8 + 8)
    assert (figures.transform_fraction is None) == (transforms == "loader")
    assert figures.compile_seconds is None
    assert figures.energy_joules is None
