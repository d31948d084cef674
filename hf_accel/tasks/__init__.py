"""One object per task, with everything that training, evaluation and prediction must know of its data.

A second task is a second file, whose class has the methods of `ImageClassification`, and one line below.
"""

from hf_accel.tasks.image_classification import ImageClassification

TASKS = {"image-classification": ImageClassification()}  # by `model.task` of a recipe
