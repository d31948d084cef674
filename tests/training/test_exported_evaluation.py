"""An exported model scored on a split: figures of the rows, and what cannot be scored."""

from pathlib import Path

import numpy as np
import pytest

from hf_accel.data.image_split import ImageSplit
from hf_accel.data.rows import FileRows
from hf_accel.errors import RunError, UserError
from hf_accel.models.exported import INPUT, Exported
from hf_accel.training.exported_evaluation import score_exported
from tests.support.data_sets import write_folder


class Fixed(Exported):
    """An exported model whose logits depend on the red of an image, which is its number."""

    def __init__(self, logits: list[list[float]]) -> None:
        self.file, self.label_names = Path("x.onnx"), ["a", "b"]
        self.by_number = np.array(logits, np.float32)

    target_side, channels = None, 3  # images are decoded whole

    def prepare(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {INPUT: np.full((1, 1), pixels[0, 0, 0])}

    def logits(self, pixel_values: np.ndarray) -> np.ndarray:
        return self.by_number[pixel_values[:, 0]]


@pytest.fixture
def split(tmp_path) -> ImageSplit:
    write_folder(tmp_path, {"a": 3})
    files = [str(tmp_path / "a" / f"{number:03}.png") for number in (2, 0, 1)]
    return ImageSplit(FileRows(files, "image"), "image", np.array([0, 1, 1]), ["a", "b"], "x", "")


def test_the_figures_are_those_of_the_rows_in_their_order(split):
    scores, predictions = score_exported(Fixed([[0, 2], [1000, -1000], [3, 0]]), split, probabilities=True)
    assert predictions.predicted.tolist() == [0, 1, 0]
    assert (scores.accuracy, scores.confusion) == (pytest.approx(2 / 3), [[1, 0], [1, 1]])
    surest = -np.log(np.finfo(np.float64).tiny)  # a probability of 0 costs a finite loss
    assert scores.loss == pytest.approx((np.log(1 + np.exp(-3)) + np.log(1 + np.exp(-2)) + surest) / 3)
    np.testing.assert_allclose(predictions.probabilities.sum(-1), 1)
    np.testing.assert_allclose(predictions.confidence, predictions.probabilities.max(-1))


def test_logits_that_are_not_finite_are_not_scored(split):
    with pytest.raises(RunError, match=r"x\.onnx: 1 of 3 rows got logits that are not finite"):
        score_exported(Fixed([[0, 1], [np.nan, 0], [0, 1]]), split)


def test_an_unreadable_image_is_named(split):
    Path(split.dataset.files[1]).write_bytes(b"")
    with pytest.raises(UserError, match=r"000\.png: cannot be read as an image: .*on_bad_image skip"):
        score_exported(Fixed([[0, 1]] * 3), split)
