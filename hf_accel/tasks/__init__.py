"""One object per task, with everything that training, evaluation and prediction must know of its data.

A task is a file, whose class has the methods of `ImageClassification` that training, evaluation and prediction call, and a line
in each of the two dictionaries: `TASKS` here, and `TEXTS` of `tasks/texts.py`. `models/kind.py` says which task a model is for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    TASKS: dict[str, Any]  # by `model.task` of a recipe


def __getattr__(name: str) -> Any:
    """Import the tasks when they are asked for: they need torch, and the texts of a card do not."""
    if name != "TASKS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hf_accel.tasks.image_classification import ImageClassification
    from hf_accel.tasks.multi_label import MultiLabelClassification
    from hf_accel.tasks.text_classification import TextClassification

    tasks = (ImageClassification(), MultiLabelClassification(), TextClassification())
    globals()["TASKS"] = {task.name: task for task in tasks}
    return globals()["TASKS"]
