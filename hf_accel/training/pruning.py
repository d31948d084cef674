"""What pruning did to the model that a run leaves: zeros by layer, the size of the file, and operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_accel.files import compressed_bytes
from hf_accel.methods.sparsity import MagnitudePruning, layer_figures
from hf_accel.models.trial import flops_by_layer
from hf_accel.report.run_report import PruningSummary
from hf_accel.training.trainer import ImageTrainer


def pruning_figures(trainer: ImageTrainer, folder: Path | None) -> dict[str, Any]:
    """The fields `sparsity` and `pruning` of the report; nothing for a run that does not prune.

    Args:
        trainer: after `train()`.
        folder: of the saved model; None: it is not saved.
    """
    pruning = next((method for method in trainer.methods if isinstance(method, MagnitudePruning)), None)
    if pruning is None:
        return {}
    rows = layer_figures(pruning.layers)
    assert trainer.example is not None, "a run that trains has it"
    flops = flops_by_layer(trainer.model, trainer.example(trainer.model))
    saved = sum(flops.get(row["name"], 0) * row["zeros"] / row["weights"] for row in rows)
    files = [] if folder is None else sorted(folder.glob("*.safetensors"))
    summary = PruningSummary(
        asked=pruning.settings.share,
        weights=sum(row["weights"] for row in rows),
        zeros=sum(row["zeros"] for row in rows),
        file_bytes=sum(file.stat().st_size for file in files) if files else None,
        compressed_bytes=sum(map(compressed_bytes, files)) if files else None,
        flops_per_image=round(trainer.flops_per_image - saved),
        history=[[entry["step"], entry["sparsity"]] for entry in trainer.state.log_history if "sparsity" in entry],
    )
    return {"sparsity": rows, "pruning": summary}
