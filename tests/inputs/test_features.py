import numpy as np
import torch

from hf_accel.inputs.features import FeatureBatches

LABELS = np.array([0, 1, 1])


class Images:
    def __len__(self):
        return len(LABELS)

    def __getitems__(self, indices):
        return {"rows": torch.tensor(indices), "labels": torch.from_numpy(LABELS[indices]), "pixels": torch.ones(3)}

    def complete(self, batch):
        return {"pixel_values": batch["pixels"], "labels": batch["labels"]}


def test_stored_features_are_read_by_row_in_every_epoch():
    batches = FeatureBatches(Images(), LABELS, None)
    batches.features = torch.arange(6.0).view(3, 2)
    batch = batches.__getitems__([3 * 4 + 2, 3 * 4 + 0])
    assert batch["rows"].tolist() == [2, 0]
    assert batch["labels"].tolist() == [1, 0]
    assert batches.complete(batch)["features"].tolist() == [[4, 5], [0, 1]]
    assert batches.complete(batch).keys() == {"features", "labels"}
    assert batches[1]["features"].tolist() == [[2, 3]]
    assert len(batches) == 3


def test_without_features_the_batches_are_those_of_the_images():
    batches = FeatureBatches(Images(), LABELS, lambda batch: {**batch, "pixel_values": 2 * batch["pixel_values"]})
    batch = batches.__getitems__([1, 2])
    assert batch.keys() == {"rows", "labels", "pixels"}
    assert batches.complete(batch)["pixel_values"].tolist() == [2, 2, 2]
    batches.features = torch.zeros(3, 2)  # a loader may have read the batch before
    assert batches.complete(batch)["pixel_values"].tolist() == [2, 2, 2]
