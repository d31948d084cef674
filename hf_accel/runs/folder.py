"""The folder of a run: what lies in it, what finished means, and whether a run may begin or resume there."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from hf_accel.cli import is_main_process
from hf_accel.config.recipe import Recipe, differences, load_recipe
from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.checkpoints import (
    KEPT_BY_OPTIMIZER,
    SETTING,
    asked_checkpoint,
    lies_in,
    of_same_length,
    recorded,
    require_checkpoint,
    require_steps_left,
)
from hf_accel.runs.lock import refuse_folder_in_use, sole_use
from hf_accel.runs.log import note_end_in_log, start_log
from hf_accel.runs.manifest import Entries
from hf_accel.runs.mark import RunMark, mapping_in
from hf_accel.runs.output_place import writable_place
from hf_accel.runs.recorded_data import DataFacts, changes, from_json, to_json
from hf_accel.runs.stored_checkpoints import StoredCheckpoints

# Everything that a run leaves, in the order in which a reader wants it; and checkpoint-<step>, made by the Trainer.
LEFT = ("model", "report.html", "report.json", "history.csv", "predictions.csv", "plots", "recipe.yaml", "log.txt",
        "runs", "exported")  # fmt: skip
STEPS_DONE = ".steps_done"  # how many optimizer steps the processes of the run have done in all
IN_USE = "another process trains or pushes there"
CHECKPOINT_PREFIX = "checkpoint-"


class RunFolder:
    """The files of one run.

    Args:
        path: of the folder, which need not exist.

    Attributes:
        checkpoint: the one to resume from, set by `claim`; None starts from scratch.
        overwrite: what an earlier run left, its curves in `runs/` aside, is deleted when this one opens the folder.
        checkpoints: those in the folder; once `claim` has looked for the one to resume from, it knows the damaged ones.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint: Path | None = None
        self.overwrite = False
        self._is_agreed = False
        self.checkpoints = StoredCheckpoints(self.path, CHECKPOINT_PREFIX, lambda: self.identity)
        self.mark = RunMark(self.path, LEFT)
        self.steps_done = self.path / STEPS_DONE
        (self.model, self.page, self.report, self.history, self.predictions, self.plots, self.recipe, self.log,
         self.trackers, self.exported) = (self.path / name for name in LEFT)  # fmt: skip
        self.model_config = self.model / "config.json"
        self.card = self.model / "README.md"
        self.notebook = self.model / "notebook.ipynb"
        self.examples = self.model / "examples"

    @classmethod
    def claim(cls, recipe: Recipe, overwrite: bool = False) -> RunFolder:
        """Check that a run of this recipe may use its output folder; nothing is written.

        Raises:
            UserError: the folder cannot be written, is in use or belongs to the images, or it holds a finished run, an
                unfinished one of another recipe, or files of other origin under the names that a run uses; or there is no
                such checkpoint as `training.resume_from_checkpoint` asks for, or its optimizer has other settings; or the
                checkpoints, or the model that the recipe names, are damaged.
        """
        run = cls(recipe.output_dir)
        if os.path.isdir(recipe.model.name):
            manifest.refuse_damaged(Path(recipe.model.name))
        writable_place(run.path)
        run._refuse_images(recipe)
        if is_main_process():
            refuse_folder_in_use(run.path, IN_USE)
        run.overwrite = overwrite
        run.checkpoint = run._usable_checkpoint(recipe)
        return run

    @classmethod
    def meant_by(cls, name: str | Path) -> RunFolder | None:
        """The run that a command means by FOLDER: it may name the run's folder, or the model or a checkpoint in it."""
        folder = Path(name)
        run = cls(folder if (folder / "model").is_dir() else folder.parent)
        return run if folder.is_dir() and run.recipe.is_file() else None

    def take_checkpoint(self, checkpoint: Path | None) -> None:
        """Start from a checkpoint that the machines of the run have agreed on, in place of the newest one here."""
        self.checkpoint, self._is_agreed = checkpoint, True

    @contextmanager
    def open(self, recipe: Recipe, data: DataFacts | None = None, identity: str | None = None) -> Iterator[None]:
        """Hold the folder for as long as the run lasts: mark it, and start its log and recipe.

        Call it when nothing in the recipe can be refused any more. Of several processes, the first one does this.

        Args:
            data: the rows of the run, which it is compared by when it is resumed.
            identity: that of the run of the first process, in a folder that this machine does not share with it.
        Raises:
            UserError: another process is at work there, or has been since `claim`.
        """
        if not is_main_process() and identity is None:
            yield
            return
        with sole_use(self.path, IN_USE):
            if not self._is_agreed and self._usable_checkpoint(recipe) != self.checkpoint:
                raise UserError(f"{self.path}: another run has used this folder since this one began. Try again.")
            if self.overwrite:
                self._remove()
            elif self.is_finished:  # and is made longer
                self._remove_results()
            asked = asked_checkpoint(recipe)
            longer_from = asked.name if isinstance(asked, Path) and lies_in(asked, self.path) else None
            facts = {
                "data": to_json(data or {}),
                "longer_from": longer_from,
                "run": identity or self._identity_to_keep(),
                "opening": uuid.uuid4().hex,
            }
            self.mark.write(files=None, others=self.mark.others(), **facts)
            start_log(self.log)
            recorded(recipe).write(self.recipe)
            try:
                yield
            except BaseException as error:
                note_end_in_log(error)
                raise
            self.mark.write(sorted(self.mark.own()), self.mark.others())

    @contextmanager
    def additions(self) -> Iterator[None]:
        """What is written within belongs to the run, which is finished."""
        others = self.mark.others()
        yield
        self.mark.write(sorted(self.mark.present() - others), others)

    @property
    def begins_elsewhere(self) -> bool:
        """Whether the run starts from a checkpoint of another folder."""
        return self.checkpoint is not None and self.checkpoint.parent != self.path

    @property
    def identity(self) -> str | None:
        """Which run this is, whatever its folder is called; None: an earlier version wrote its mark."""
        found = self.mark.fact("run")
        return found if isinstance(found, str) else None

    @property
    def opening(self) -> str | None:
        """Tells each time that a run opened the folder from all others; None: none has."""
        return self.mark.fact("opening")

    def _identity_to_keep(self) -> str:
        if self.checkpoint is None or self.begins_elsewhere:
            return uuid.uuid4().hex
        of_checkpoint = (manifest.read(self.checkpoint) or {}).get("run")
        return self.identity or of_checkpoint or uuid.uuid4().hex

    @property
    def data(self) -> DataFacts:
        """The rows that the run recorded when it opened the folder; empty where it recorded none."""
        return from_json(self.mark.fact("data"))

    def refuse_changed_data(self, data: DataFacts) -> None:
        """Refuse to continue a run with rows other than its own; call it between `claim` and `open`.

        Raises:
            UserError: a run is resumed in this folder, and it recorded other rows.
        """
        if self.checkpoint is None or self.begins_elsewhere:
            return
        changed = changes(self.data, data) if self.data else {}
        if changed:
            what = "; ".join(f"{role}: {change}" for role, change in changed.items())
            raise UserError(
                f"{self.path}: holds a run whose data has changed since ({what}). Restore the data to resume it, add "
                "--overwrite to start from scratch, or choose another --output_dir."
            )

    @property
    def is_finished(self) -> bool:
        """Whether its scores and its model are saved; a page or a card may be missing."""
        return self.report.is_file()

    def refuse_unfinished(self) -> None:
        """Say that a run has no model yet, where this is the folder of one.

        Raises:
            UserError: the run has left checkpoints at most.
        """
        if self.model.is_dir() or not self.recipe.is_file() or not self.is_ours():
            return
        last = self.checkpoints.last()
        advice = "" if last is None else f", or name its last checkpoint, {last}"
        raise UserError(
            f"{self.path}: holds a run that has not finished, so it has no model yet. Resume it with the command that "
            f"started it{advice}."
        )

    def missing(self) -> list[str]:
        """What a finished run would have and this folder lacks."""
        needed = (self.report, self.recipe, self.model_config)
        return [path.relative_to(self.path).as_posix() for path in needed if not path.is_file()]

    def left(self) -> list[Path]:
        """What the run has left so far, checkpoints and records of trackers aside."""
        return [self.path / name for name in LEFT if name != self.trackers.name and (self.path / name).exists()]

    def remove_weights(self) -> None:
        """Delete the model and the checkpoints of a run that is kept for its figures."""
        left = {name: entry for name, entry in self.results.items() if name != self._model_manifest}
        self.mark.note(results=left)
        for folder in (self.model, *self.checkpoints.all()):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def results(self) -> Entries:
        """Sizes and checksums of the files that a finished run is made of; empty where an earlier version wrote them."""
        found = self.mark.fact("results")
        return found if manifest.are_entries(found) else {}

    @property
    def _model_manifest(self) -> str:
        return (self.model / manifest.MANIFEST).relative_to(self.path).as_posix()

    def seal_model(self) -> None:
        """Declare the saved model complete: what may be written again, such as its card, is not part of that."""
        manifest.commit(self.model, left_out=(self.card, self.notebook, self.examples))

    def record_results(self, texts: Mapping[Path, str]) -> None:
        """Record what a finished run is made of, before the report that declares it finished.

        Args:
            texts: the files that are written after this, with their content.
        """
        entries = {path.name: manifest.entry_of(text.encode("utf-8")) for path, text in texts.items()}
        entries[self.recipe.name] = manifest.entry_of(self.recipe)
        entries[self._model_manifest] = manifest.entry_of(self.model / manifest.MANIFEST)
        self.mark.note(results=entries)

    def refuse_damaged(self) -> None:
        """Refuse to use a finished run that is not as it was written, every byte of its results and its model.

        Raises:
            UserError: names the first file that is not.
        """
        results = dict(self.results)
        if not (self.model / manifest.MANIFEST).is_file():  # deleted, as `manifest.refuse_damaged` says
            results.pop(self._model_manifest, None)
        found = manifest.damaged_entry(self.path, results)
        if found is not None:
            raise UserError(f"{found}. The file has changed since the run wrote it. Restore it, or repeat the run.")
        manifest.refuse_damaged(self.model, largest_hashed=None)

    def is_ours(self) -> bool:
        """Whether a run was here: by its mark, or by a report or recipe as earlier versions, which left no mark, wrote."""
        if self.mark.read() is not None:
            return True
        report, recipe = mapping_in(self.report, json.loads), mapping_in(self.recipe, yaml.safe_load)
        return {"schema", "recipe", "train", "environment"} <= report.keys() or (
            recipe.keys() - {"output_name"} == {"name", "variant", "model", "data", "training"}
        )

    def _usable_checkpoint(self, recipe: Recipe) -> Path | None:
        """The checkpoint that a run of this recipe starts from; refuses what `claim` says."""
        asked = asked_checkpoint(recipe)
        is_own = lies_in(asked, self.path)
        if self.is_finished and self.is_ours() and not self.overwrite and not is_own:
            raise UserError(
                f"{self.path}: holds a finished run, which is kept. Add --overwrite to replace it, --{SETTING} true with more "
                "epochs to train it longer, or choose another --output_dir."
            )
        self._refuse_foreign_files()
        if self.overwrite and is_own:
            raise UserError(
                f"{self.path}: --overwrite deletes the checkpoints in this folder, and --{SETTING} asks for one of them. Leave "
                "one of the two out."
            )
        last = None if self.overwrite else self.checkpoints.newest_whole()
        if last is not None:
            return self._resumable(recipe, asked, last)
        if asked is True:
            raise UserError(f"{self.path}: --{SETTING} is true, and this folder holds no complete checkpoint.")
        if not isinstance(asked, Path):
            return None
        require_steps_left(recipe, require_checkpoint(asked))
        RunFolder(asked.parent)._refuse_another_optimizer(recipe, asked)
        return asked

    def _refuse_another_optimizer(self, recipe: Recipe, checkpoint: Path) -> None:
        if not self.recipe.is_file():
            return
        changed = [name for name in differences(load_recipe(self.recipe), recipe) if name in KEPT_BY_OPTIMIZER]
        if changed:
            raise UserError(
                f"--{SETTING} {checkpoint}: {', '.join(changed)} would have no effect, because the checkpoint's optimizer keeps "
                "the values of its run. Give those values, or give the checkpoint as --model.name to start a new optimizer."
            )

    def _refuse_images(self, recipe: Recipe) -> None:
        data = Path(recipe.data.name).expanduser()
        place = self.path.resolve()
        is_below = data.is_dir() and data.resolve() in (place, *place.parents)
        if is_below and place.is_dir() and any(place.iterdir()) and not self.is_ours():
            raise UserError(
                f"--output_dir {self.path}: belongs to the images of data.name {recipe.data.name}, and the files of a run "
                "would be mixed with them. Choose another folder."
            )

    def _refuse_foreign_files(self) -> None:
        is_ours = self.is_ours()
        named = [name for name in LEFT if os.path.lexists(self.path / name)]
        ours = {path.name for path in self.checkpoints.all()} if is_ours else set()
        kept = sorted({path.name for path in self.path.glob(f"{CHECKPOINT_PREFIX}*")} - ours)
        foreign = [*([] if is_ours else named), *kept]
        if foreign:
            raise UserError(
                f"{self.path}: holds {', '.join(foreign)}, and no run left {'it' if len(foreign) == 1 else 'them'} there. "
                "A run would overwrite or delete files of such names. Move them, or choose another --output_dir."
            )

    def _resumable(self, recipe: Recipe, asked: bool | Path | None, last: Path) -> Path:
        """The newest checkpoint of the run in this folder, if this recipe may resume it."""
        is_own = lies_in(asked, self.path)
        before = load_recipe(self.recipe) if self.recipe.is_file() else None
        now = recorded(recipe)
        same = before == now
        if before is not None and is_own:  # asked for by name: it may be made longer
            same = of_same_length(before) == of_same_length(now)
        if not same:
            changed = ", ".join(differences(before, now)) if before else "its recipe.yaml is gone"
            state = "a finished" if self.is_finished else "an unfinished"
            raise UserError(
                f"{self.path}: holds {state} run with other settings ({changed}). Run it with its own settings to "
                "resume it, add --overwrite to start from scratch, or choose another --output_dir."
            )
        if asked is False:
            raise UserError(
                f"{self.path}: holds an unfinished run, and --{SETTING} is false. Add --overwrite to start from scratch, or "
                "choose another --output_dir."
            )
        if isinstance(asked, Path) and is_own and self.mark.fact("longer_from") != asked.name:
            require_checkpoint(asked)
            if asked.name != last.name:
                raise UserError(
                    f"--{SETTING} {asked}: {last.name} of that folder is newer, and would be taken for a continuation of this "
                    f"one. Resume {last.name}, or choose another --output_dir for what follows {asked.name}."
                )
        if self.is_finished:
            require_steps_left(recipe, last)
        return last

    def _remove(self) -> None:
        """Delete what a run left, and nothing else that may lie in the folder; a tracker compares its curves with new ones."""
        for name in self.mark.own():
            if name.split("/")[0] != self.trackers.name:
                (self.path / name).unlink(missing_ok=True)
        self.steps_done.unlink(missing_ok=True)
        for folder in self.checkpoints.all():
            shutil.rmtree(folder)
        for folder in (self.model, self.plots):
            for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
                _remove_if_empty(inner)
            _remove_if_empty(folder)

    def _remove_results(self) -> None:
        """Delete what says that the run is finished, and what was made from that; its model stays until the next one."""
        self.report.unlink()
        results = tuple(path.name for path in (self.page, self.history, self.predictions, self.plots))
        for name in self.mark.own():
            if name.split("/")[0] in results:
                (self.path / name).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
