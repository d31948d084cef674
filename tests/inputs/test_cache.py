"""Where decoded pixels live: the same pixels in every mode, and disk caches that survive damage and races."""

import contextlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import BitImageProcessor, ViTImageProcessor

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.sections import DataSettings
from hf_accel.data.splits import load_splits
from hf_accel.errors import RunError, UserError
from hf_accel.files import cache_folder
from hf_accel.inputs import cache, disk_cache
from hf_accel.inputs.batches import ImageBatches
from hf_accel.inputs.cache import open_evaluation_pixels, open_pixels, open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.stored import StoredImages
from tests.support.image_splits import SMALL, VARIED, make_split, noise, one_thread, open_in_process  # noqa: F401

RANDOM_CROPS = AugmentSettings(crop="random_resized")


def settings(mode: str, folder: Path | None = None, **changes) -> DataSettings:
    return DataSettings(name="made", cache=mode, cache_dir=None if folder is None else str(folder), **changes)


@pytest.fixture(scope="module")
def vit48() -> Preprocessing:
    return Preprocessing.of(ViTImageProcessor(size={"height": 48, "width": 48}))


@pytest.mark.parametrize("shapes", [SMALL, VARIED, [(50, 70)] * 24], ids=["small", "varied", "one size"])
@pytest.mark.parametrize("open_as", [open_training_pixels, open_evaluation_pixels])
def test_every_cache_mode_gives_the_same_batches(shapes, open_as, vit48, tmp_path):
    split = make_split(noise(*shapes))
    rows = np.array([5, 0, 5, 23, 11])
    stores = [
        open_as(split, settings(mode, tmp_path, augment=RANDOM_CROPS), vit48) for mode in ("memory", "disk", "none")
    ]
    assert [store.mode for store in stores] == ["memory", "disk", "none"]
    (pixels, sizes), *others = (store.batch(rows) for store in stores)
    assert pixels.dtype == torch.uint8
    for other_pixels, other_sizes in others:
        assert torch.equal(pixels, other_pixels)
        assert (sizes is None) == (other_sizes is None)
        assert sizes is None or torch.equal(sizes, other_sizes)


def test_device_pixels_are_the_same_and_only_row_numbers_travel(vit48):
    split = make_split(noise(*SMALL))
    in_memory = open_evaluation_pixels(split, settings("memory"), vit48)
    on_device = open_evaluation_pixels(split, settings("device"), vit48, "cpu")
    rows = np.array([3, 1])
    assert torch.equal(on_device.complete({"rows": torch.from_numpy(rows)})["pixels"], in_memory.batch(rows)[0])
    assert set(ImageBatches(split, on_device).__getitems__([3, 1])) == {"epochs", "rows", "labels"}


def test_images_of_different_sizes_cannot_live_on_the_device(vit48):
    with pytest.raises(UserError, match="cache: device keeps images of one size"):
        open_training_pixels(make_split(noise(*VARIED)), settings("device", augment=RANDOM_CROPS), vit48)


def test_small_images_of_one_size_are_kept_as_they_are(vit48):
    images = noise(*SMALL)
    store = open_evaluation_pixels(make_split(images), settings("memory"), vit48)
    assert store.nbytes == 24 * 32 * 32 * 3
    np.testing.assert_array_equal(store.images().numpy(), np.stack(images))


def test_evaluation_keeps_exactly_what_the_model_sees(vit48):
    images = noise(*VARIED)
    store = open_evaluation_pixels(make_split(images), settings("memory"), vit48)
    np.testing.assert_array_equal(store.images()[7].numpy(), vit48.apply(images[7]))


def test_images_of_the_models_own_size_are_cropped_as_the_processor_does():
    preprocessing = Preprocessing.of(
        BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    )
    images = noise(*SMALL)
    store = open_evaluation_pixels(make_split(images), settings("memory"), preprocessing)
    assert store.shape == (32, 32)
    np.testing.assert_array_equal(store.images()[0].numpy(), preprocessing.apply(images[0]))


def test_photographs_are_shrunk_to_the_cache_size_and_never_enlarged(vit48):
    split = make_split(noise((100, 300), (300, 100), (30, 90)))
    store = open_training_pixels(split, settings("memory", augment=RANDOM_CROPS, cache_size=50), vit48)
    assert store.batch(np.arange(3))[1].tolist() == [[50, 150], [150, 50], [30, 90]]
    by_default = open_training_pixels(split, settings("memory", augment=RANDOM_CROPS), vit48)
    assert by_default.batch(np.array([0]))[0].shape[1] == round(48 / 0.875)


def test_the_frame_around_smaller_images_is_black(vit48):
    images = noise((20, 60), (50, 30))
    pixels, sizes = open_training_pixels(
        make_split(images), settings("memory", augment=RANDOM_CROPS), vit48
    ).batch(np.arange(2))  # fmt: skip
    assert pixels.shape == (2, 50, 60, 3)
    np.testing.assert_array_equal(pixels[0, :20, :60].numpy(), images[0])
    assert pixels[0, 20:].sum() == pixels[1, :, 30:].sum() == 0
    assert sizes.tolist() == [[20, 60], [50, 30]]


def test_sizes_from_headers_are_those_of_decoded_images(tmp_path):
    for orientation in (1, 6):
        image = PIL.Image.fromarray(noise((20, 30))[0])
        exif = image.getexif()
        exif[0x0112] = orientation
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            for suffix in ("jpg", "png", "webp"):
                image.save(tmp_path / label / f"{orientation}.{suffix}", exif=exif)
    split = load_splits(DataSettings(name=str(tmp_path)), seed=0, selection=False).train
    shapes = list(StoredImages(split).original_shapes())
    assert shapes == [split.read(row).shape[:2] for row in range(len(split))]
    assert set(shapes) == {(20, 30), (30, 20)}


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_an_unreadable_image_is_named(mode, tmp_path, vit48):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            PIL.Image.fromarray(noise((60, 60))[0]).save(tmp_path / label / f"{number}.png")
    split = load_splits(DataSettings(name=str(tmp_path)), seed=0, selection=False).train
    broken = Path(split.where(2))
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(UserError, match=rf"{broken.name}: cannot be read"):
        open_training_pixels(split, settings(mode, tmp_path / "cache", augment=RANDOM_CROPS), vit48)
    assert not list((tmp_path / "cache").glob("*.partial")) if mode == "disk" else True


def count_builds(monkeypatch) -> list[str]:
    builds = []
    build = disk_cache._build
    monkeypatch.setattr(disk_cache, "_build", lambda *args: (builds.append(args[1].name), build(*args)))
    return builds


def test_a_disk_cache_is_built_once_and_read_again(vit48, tmp_path, monkeypatch):
    builds = count_builds(monkeypatch)
    split = make_split(noise(*VARIED))
    for _ in range(2):
        store = open_evaluation_pixels(split, settings("disk", tmp_path), vit48)
    assert len(builds) == 1
    assert store.nbytes == 24 * 48 * 48 * 3
    assert isinstance(store.file.index, np.memmap)


def test_other_rows_or_another_geometry_have_a_cache_of_their_own(vit48, tmp_path, monkeypatch):
    builds = count_builds(monkeypatch)
    images = noise(*VARIED)
    for split, side in ((make_split(images), 30), (make_split(images), 31), (make_split(images, fingerprint="b"), 30)):
        open_pixels(split, settings("disk", tmp_path), short_side=side, preprocessing=None)
    open_evaluation_pixels(make_split(images), settings("disk", tmp_path), vit48)
    assert len(set(builds)) == 4


def test_pixels_that_were_decoded_in_another_way_have_a_cache_of_their_own(vit48, tmp_path, monkeypatch):
    builds = count_builds(monkeypatch)
    for number in (disk_cache._FORMAT - 1, disk_cache._FORMAT):
        monkeypatch.setattr(disk_cache, "_FORMAT", number)
        open_evaluation_pixels(make_split(noise(*VARIED)), settings("disk", tmp_path), vit48)
    assert len(set(builds)) == 2


def only_folder(place: Path) -> Path:
    """The one cache in a folder."""
    (folder,) = (path for path in place.iterdir() if path.is_dir())
    return folder


def truncate(name: str):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


def flip_a_bit(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << position % 8]))


def lose(name: str):
    return lambda folder: (folder / name).unlink()


def replace_by_a_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def manifest_with(**changes):
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return change


def manifest_of(content: bytes):
    return lambda folder: (folder / "manifest.json").write_bytes(content)


DAMAGE = {
    "pixels truncated": truncate("pixels.bin"),
    "index truncated": truncate("index.npy"),
    "no pixels": lose("pixels.bin"),
    "no index": lose("index.npy"),
    "no manifest": lose("manifest.json"),
    "a bit of the index": lambda folder: flip_a_bit(folder / "index.npy", 300),
    "a folder as the manifest": replace_by_a_folder,
    "a file in place of the folder": replace_by_a_file,
    "another split": manifest_with(split="another"),
    "files: 3": manifest_with(files=3),
    "files: {}": manifest_with(files={}),
    "files: text": manifest_with(files={"pixels.bin": "x", "index.npy": None}),
    "index: 3": manifest_with(index=3),
    **{
        repr(content[:12]): manifest_of(content)
        for content in (b"", b"{", b"{}", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 10**5, b"\0" * 100)
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_stale_disk_cache_is_built_again(damage, vit48, tmp_path, monkeypatch, caplog):
    split, rows = make_split(noise(*VARIED)), np.arange(24)
    before = open_evaluation_pixels(split, settings("disk", tmp_path), vit48).batch(rows)[0]
    DAMAGE[damage](only_folder(tmp_path))
    builds = count_builds(monkeypatch)
    after = open_evaluation_pixels(split, settings("disk", tmp_path), vit48).batch(rows)[0]
    assert len(builds) == 1
    assert "it is built again" in caplog.text
    assert torch.equal(before, after)


@pytest.mark.parametrize("open_as", [open_training_pixels, open_evaluation_pixels])
def test_a_flipped_bit_is_noticed_when_its_image_is_read_and_the_next_run_builds_the_cache_again(
    open_as, vit48, tmp_path
):
    split, rows = make_split(noise(*VARIED)), np.arange(24)
    asked = settings("disk", tmp_path, augment=RANDOM_CROPS)
    store = open_as(split, asked, vit48)
    before = store.batch(rows)[0]
    dice = np.random.default_rng(0)
    for position in dice.integers(0, store.nbytes, 10).tolist():
        store = open_as(split, asked, vit48)
        folder = only_folder(tmp_path)
        damaged = int(np.searchsorted(store.file.index[:, 0], position, side="right")) - 1
        flip_a_bit(folder / "pixels.bin", position)
        others = np.delete(rows, damaged)
        store.batch(others)
        message = (
            rf"pixels\.bin: image {damaged} is not as it was written.*Repeat the command: the cache is built again"
        )
        with pytest.raises(RunError, match=message):
            store.batch(rows)
        assert torch.equal(open_as(split, asked, vit48).batch(rows)[0], before)


def test_images_that_have_changed_places_are_noticed(vit48, tmp_path):
    store = open_evaluation_pixels(make_split(noise(*SMALL)), settings("disk", tmp_path), vit48)
    pixels = only_folder(tmp_path) / "pixels.bin"
    content, size = pixels.read_bytes(), 32 * 32 * 3
    pixels.write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])
    with pytest.raises(RunError, match="image 0 is not as it was written"):
        store.batch(np.array([0]))


@pytest.mark.parametrize("name", ["pixels.bin", "index.npy"])
@pytest.mark.parametrize("open_as", [open_training_pixels, open_evaluation_pixels])
def test_a_file_that_is_truncated_under_a_running_reader_is_an_error(name, open_as, vit48, tmp_path):
    store = open_as(make_split(noise(*VARIED)), settings("disk", tmp_path, augment=RANDOM_CROPS), vit48)
    os.truncate(only_folder(tmp_path) / name, 0)  # a mapped page would end the process with SIGBUS
    with pytest.raises(RunError, match=rf"{name}: it is truncated, so the cache of decoded images is damaged"):
        store.batch(np.array([20]))


def test_an_index_that_has_changed_under_a_running_reader_is_an_error(vit48, tmp_path):
    store = open_training_pixels(make_split(noise(*VARIED)), settings("disk", tmp_path, augment=RANDOM_CROPS), vit48)
    flip_a_bit(only_folder(tmp_path) / "index.npy", 128 + 2 * 32 + 8 + 5)  # the height of the third image
    with pytest.raises(RunError, match=r"index\.npy: it is not as it was written"):
        store.batch(np.array([2]))


@contextlib.contextmanager
def somebody_else(place: Path):
    """Within, this process may read what is in a folder and not write there, also where the tests run as root."""
    for folder in (place, *(path for path in place.iterdir() if path.is_dir())):
        folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        place.chmod(0o755)


def test_a_cache_that_another_user_has_built_is_used_and_one_that_is_damaged_is_refused(vit48):
    split, rows = make_split(noise(*SMALL)), np.arange(24)
    with tempfile.TemporaryDirectory() as place:  # pytest's folders are closed to others
        folder = Path(place)
        before = open_evaluation_pixels(split, settings("disk", folder), vit48).batch(rows)[0]
        with somebody_else(folder):
            store = open_evaluation_pixels(split, settings("disk", folder), vit48)
            assert torch.equal(store.batch(rows)[0], before)
        flip_a_bit(only_folder(folder) / "pixels.bin", 5000)
        with somebody_else(folder):
            with pytest.raises(RunError, match=r"Have the folder deleted, or name another data\.cache_dir"):
                store.batch(rows)
            with pytest.raises(UserError, match=r"data\.cache_dir .*Permission denied.*name another one"):
                open_evaluation_pixels(make_split(noise(*VARIED)), settings("disk", folder), vit48)


def test_the_files_of_a_build_that_was_killed_do_no_harm(vit48, tmp_path):
    split = make_split(noise(*VARIED))
    before = open_evaluation_pixels(split, settings("disk", tmp_path), vit48).batch(np.arange(24))[0]
    folder = only_folder(tmp_path)
    partial = folder.rename(folder.with_name(folder.name + ".partial"))
    truncate("pixels.bin")(partial)
    after = open_evaluation_pixels(split, settings("disk", tmp_path), vit48).batch(np.arange(24))[0]
    assert torch.equal(before, after)
    assert not partial.exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(vit48, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=70 << 20))
    with pytest.raises(
        UserError, match=r"needs 6.6 MiB .* 64.0 MiB more to stay free; 70.0 MiB are free.*data.cache_dir"
    ):
        open_evaluation_pixels(make_split(noise(*[(60, 60)] * 1000)), settings("disk", tmp_path), vit48)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_written_is_refused(vit48, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data.cache_dir .*Expected a folder that can be written"):
        open_evaluation_pixels(make_split(noise(*SMALL)), settings("disk", tmp_path / "file"), vit48)


def test_memory_that_is_too_small_is_refused(vit48, monkeypatch):
    monkeypatch.setattr(cache.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(UserError, match=r"Set data\.cache: disk"):
        open_evaluation_pixels(make_split(noise(*SMALL)), settings("memory"), vit48)


def test_the_size_is_announced(vit48, tmp_path, caplog):
    caplog.set_level("INFO", logger="hf_accel")
    open_evaluation_pixels(make_split(noise(*VARIED)), settings("disk", tmp_path), vit48)
    assert "decoded images take 0.2 MiB" in caplog.text


def test_caches_lie_in_the_folder_named_or_in_that_of_hugging_face(monkeypatch, tmp_path):
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder(None) == Path.home() / ".cache" / "hf_accel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "hf_accel"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert cache_folder(None) == tmp_path / "hf" / "hf_accel"
    assert cache_folder(str(tmp_path)) == tmp_path


@pytest.mark.slow
def test_processes_that_want_the_same_cache_at_once_build_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=open_in_process, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    (builds_a, sum_a), (builds_b, sum_b) = results.get(timeout=60), results.get(timeout=60)
    for process in processes:
        process.join()
    assert builds_a + builds_b == 1
    assert sum_a == sum_b > 0


class InEveryMode(torch.utils.data.Dataset):
    """The same batches read from several stores in one worker: starting one takes seconds."""

    def __init__(self, batches: dict[str, ImageBatches]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 24

    def __getitems__(self, indices: list[int]) -> dict[str, dict]:
        return {mode: batches.__getitems__(indices) for mode, batches in self.batches.items()}


def identity(batch: dict) -> dict:
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_the_same_batches(start, vit48, tmp_path):
    split = make_split(noise(*VARIED))
    stores = {
        mode: open_training_pixels(split, settings(mode, tmp_path, augment=RANDOM_CROPS), vit48)
        for mode in ("memory", "disk", "none")
    }
    dataset = InEveryMode({mode: ImageBatches(split, store) for mode, store in stores.items()})
    loader = DataLoader(dataset, batch_size=10, num_workers=1, multiprocessing_context=start, collate_fn=identity)
    for number, by_mode in enumerate(loader):
        expected = dataset.batches["memory"].__getitems__(range(10 * number, min(24, 10 * number + 10)))
        for batch in by_mode.values():
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[key], expected[key]) for key in batch)
    assert number == 2


def test_a_pickled_disk_cache_carries_no_pixels(vit48, tmp_path):
    store = open_training_pixels(make_split(noise(*VARIED)), settings("disk", tmp_path, augment=RANDOM_CROPS), vit48)
    assert len(pickle.dumps(store)) < 2000
    reopened = pickle.loads(pickle.dumps(store))
    assert torch.equal(reopened.batch(np.arange(24))[0], store.batch(np.arange(24))[0])


GROWTH = """
import sys
import torch
from hf_accel.data.splits import load_splits
from hf_accel.config.sections import DataSettings
from hf_accel.inputs.cache import open_pixels
from hf_accel.inputs.batches import ImageBatches

def anonymous_mib():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

torch.set_num_threads(1)
for mode in ("none", "disk"):
    for folder in sys.argv[2:]:
        settings = DataSettings(name=folder, cache=mode, cache_dir=sys.argv[1])
        split = load_splits(settings, seed=0, selection=False).train
        batches = ImageBatches(split, open_pixels(split, settings, short_side=128, preprocessing=None))
        for start in range(0, len(batches), 16):
            batches.__getitems__(range(start, min(start + 16, len(batches))))
        print(len(batches), anonymous_mib())
"""


@pytest.mark.slow
def test_anonymous_memory_stays_flat_when_the_data_grows_tenfold(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("RssAnon is read from /proc")
    image = PIL.Image.fromarray(noise((16, 16))[0]).resize((160, 160))
    for name, count in (("small", 60), ("large", 600)):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(count):
                image.save(tmp_path / name / label / f"{number}.jpg")
    folders = [str(tmp_path / name) for name in ("cache", "small", "large")]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", GROWTH, *folders]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [list(map(float, line.split())) for line in run.stdout.splitlines()]
    for (small_rows, small), (large_rows, large) in (lines[:2], lines[2:]):
        assert large_rows > 9 * small_rows
        decoded = large_rows * 128 * 128 * 3 / 2**20
        assert large - small < 0.2 * decoded, f"{small:.0f} -> {large:.0f} MiB; decoded: {decoded:.0f} MiB"
