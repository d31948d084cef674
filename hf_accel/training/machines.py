"""Runs on several machines: whether they share the folder of the run, and which checkpoint all of them resume from.

Where they do not share it, each machine keeps checkpoints, model and report in a folder of its own, as `save_on_each_node` of
TrainingArguments asks for; the page, the plots and the card are in that of the first one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainingArguments

from hf_accel.cli import is_main_process
from hf_accel.config.recipe import Recipe
from hf_accel.ranks import speaks_first
from hf_accel.runs.checkpoints import step_of
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.recorded_data import DataFacts

logger = logging.getLogger(__name__)


def are_several(args: TrainingArguments) -> bool:
    """Whether the processes of the run are on more than one machine, as the launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", args.world_size)) < args.world_size


def agree_on_checkpoint(run: RunFolder, args: TrainingArguments) -> None:
    """Let all machines resume from the newest checkpoint that is whole on each of them; call it on all processes."""
    if not are_several(args):
        return
    own = None if run.checkpoint is None else run.checkpoint.name
    if len(set(gather_object([own]))) == 1:
        return
    whole = {path.name: path for path in run.checkpoints.all_whole()}
    common = set.intersection(*map(set, gather_object([sorted(whole)])))
    newest = max((whole[name] for name in common), key=step_of, default=None)
    run.take_checkpoint(newest)
    if is_main_process():
        start = "the run starts from scratch" if newest is None else f"the run resumes from {newest.name}"
        logger.warning("%s: the machines do not have the same checkpoints, so %s", run.path, start)


@contextmanager
def folder_of_machine(
    run: RunFolder, recipe: Recipe, data: DataFacts, args: TrainingArguments, notes: list[str]
) -> Iterator[None]:
    """Open the folder of this machine, where it is not that of the first process, which has opened its own by now.

    Args:
        notes: of the report; one is added where each machine has a folder.
    """
    with ExitStack() as stack:
        if are_several(args):
            first = [(run.identity, run.opening)]
            broadcast_object_list(first)
            identity, opening = first[0]
            is_own = run.opening != opening
            args.save_on_each_node = any(gather_object([is_own]))
            if args.save_on_each_node:
                notes.append(
                    f"output_dir: {run.path} is not shared by the machines, so each keeps its checkpoints there"
                )
            if is_own and speaks_first():
                stack.enter_context(run.open(recipe, data, identity=identity))
        yield
