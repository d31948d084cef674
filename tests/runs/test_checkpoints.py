"""Which checkpoint a run starts from, and whether its rows are still those it began with."""

import json
from unittest.mock import Mock

import pytest

from hf_accel.config.recipe import load_recipe
from hf_accel.errors import UserError
from hf_accel.files import RUN_MARK
from hf_accel.runs.checkpoints import asked_checkpoint, recorded
from hf_accel.runs.folder import RunFolder
from hf_accel.runs.recorded_data import SplitFacts, changes, from_json, to_json
from hf_accel.train import train_from
from tests.runs.test_folder import content, do_run
from tests.support.checkpoints import write_checkpoint

DATA = {"train": SplitFacts(19, "a"), "validation": SplitFacts(5, "b"), "test": SplitFacts(8, "c")}


@pytest.fixture
def make(tmp_path):
    """A recipe of 3 epochs in the folder `run`, with these arguments."""

    def recipe(**training):
        base = {"output_dir": str(tmp_path / "run"), "num_train_epochs": 3}
        return load_recipe("digits", overrides={"training": base | training})

    return recipe


def refused(recipe, overwrite=False) -> str:
    """What `claim` says; the folder is as it was."""
    before = content(recipe.output_dir)
    with pytest.raises(UserError) as error:
        RunFolder.claim(recipe, overwrite)
    assert content(recipe.output_dir) == before
    return str(error.value)


@pytest.fixture
def interrupted(make):
    run = do_run(make(), finish=False)
    write_checkpoint(run.path / "checkpoint-4", 4, 1.0)
    return write_checkpoint(run.path / "checkpoint-8", 8, 2.0)


@pytest.fixture
def finished(make):
    run = do_run(make(), "model/config.json", "report.html", "plots/loss.svg", "predictions.csv")
    write_checkpoint(run.path / "checkpoint-8", 8, 2.0)
    return write_checkpoint(run.path / "checkpoint-12", 12, 3.0)


@pytest.mark.parametrize(
    ("value", "meant"), [(None, None), (True, True), ("true", True), ("False", False), (False, False)]
)
def test_true_and_false_may_be_words(make, value, meant):
    assert asked_checkpoint(make(resume_from_checkpoint=value)) is meant


def test_true_without_a_checkpoint_is_refused(make):
    assert "holds no complete checkpoint" in refused(make(resume_from_checkpoint=True))
    assert not make().output_dir.exists()


@pytest.mark.parametrize("value", [None, True, "{last}"])
def test_an_interrupted_run_resumes_its_newest_checkpoint(make, interrupted, value):
    recipe = make(resume_from_checkpoint=value if value != "{last}" else str(interrupted))
    run = RunFolder.claim(recipe)
    assert run.checkpoint == interrupted
    with run.open(recipe):
        assert "resume_from_checkpoint" not in load_recipe(run.recipe).training
    write_checkpoint(run.path / "checkpoint-10", 10, 2.5)  # and it is interrupted again
    assert RunFolder.claim(recipe).checkpoint.name == "checkpoint-10"


def test_false_does_not_throw_an_interrupted_run_away(make, interrupted):
    assert "Add --overwrite to start from scratch" in refused(make(resume_from_checkpoint=False))
    assert RunFolder.claim(make(resume_from_checkpoint=False), overwrite=True).checkpoint is None


def test_an_older_checkpoint_of_the_folder_is_refused_because_newer_ones_would_follow_it(make, interrupted):
    older = interrupted.with_name("checkpoint-4")
    assert "checkpoint-8 of that folder is newer" in refused(make(resume_from_checkpoint=str(older)))
    elsewhere = make(resume_from_checkpoint=str(older), output_dir=str(older.parent.parent / "other"))
    assert RunFolder.claim(elsewhere).checkpoint == older


def test_overwrite_and_a_checkpoint_of_the_same_folder_contradict_each_other(make, finished):
    for value in (True, str(finished)):
        assert "deletes the checkpoints" in refused(make(resume_from_checkpoint=value), overwrite=True)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_finished_run_is_made_longer_and_keeps_its_checkpoint_and_model(make, finished, by_name):
    value = str(finished) if by_name else True
    assert "num_train_epochs is 3. Set more epochs" in refused(make(resume_from_checkpoint=value))
    assert "training.learning_rate" in refused(make(resume_from_checkpoint=value, num_train_epochs=5, learning_rate=1))
    assert "holds a finished run" in refused(make(num_train_epochs=5))
    recipe = make(resume_from_checkpoint=value, num_train_epochs=5)
    (finished.parent / "plots" / "mine.svg").write_text("kept")
    run = RunFolder.claim(recipe)
    assert run.checkpoint == finished
    with run.open(recipe):
        assert not run.is_finished
        assert not any(path.exists() for path in (run.page, run.predictions, run.plots / "loss.svg"))
        assert (run.plots / "mine.svg").read_text() == "kept"
        assert run.model_config.is_file()
        assert finished.is_dir()
    # interrupted here, the same command resumes, and so does the one without the flag
    write_checkpoint(run.path / "checkpoint-16", 16, 4.0)
    for again in (recipe, make(num_train_epochs=5)):
        assert RunFolder.claim(again).checkpoint.name == "checkpoint-16"


def test_more_steps_make_a_run_longer_too(make, finished):
    assert "max_steps is 12. Set more steps" in refused(make(resume_from_checkpoint=True, max_steps=12))
    assert RunFolder.claim(make(resume_from_checkpoint=True, max_steps=13)).checkpoint == finished


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (None, "does not exist"),
        ("trainer_state.json", "has no trainer_state.json"),
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("optimizer.pt", "has no optimizer.pt"),  # the Trainer would begin with a new one, silently
        ("scheduler.pt", "has no scheduler.pt"),
    ],
)
def test_a_path_that_is_no_checkpoint_is_refused_by_name(make, tmp_path, left_out, message):
    place = tmp_path / "from" / "checkpoint-8"
    if left_out:
        write_checkpoint(place, 8, 2.0)
        (place / left_out).unlink()
    said = refused(make(resume_from_checkpoint=str(place)))
    assert message in said
    assert str(place) in said
    assert not make().output_dir.exists()


def test_the_folder_of_a_run_in_the_place_of_a_checkpoint_names_those_it_holds(make, finished):
    recipe = make(resume_from_checkpoint=str(finished.parent), output_dir=str(finished.parent.parent / "other"))
    assert "It holds checkpoint-12, checkpoint-8: name one" in refused(recipe)


def test_a_checkpoint_from_which_nothing_is_left_to_train_is_refused(make, tmp_path):
    place = write_checkpoint(tmp_path / "from" / "checkpoint-12", 12, 3.0)
    assert "is of step 12, epoch 3, and --num_train_epochs is 3" in refused(make(resume_from_checkpoint=str(place)))
    assert RunFolder.claim(make(resume_from_checkpoint=str(place), num_train_epochs=4)).checkpoint == place


@pytest.mark.parametrize("changed", [{"learning_rate": 1.0}, {"weight_decay": 0.5}, {"optim": "sgd"}])
def test_a_setting_that_the_checkpoints_optimizer_would_overrule_is_refused(make, finished, changed):
    elsewhere = {"resume_from_checkpoint": str(finished), "output_dir": str(finished.parent.parent / "other")}
    assert f"training.{next(iter(changed))} would have no effect" in refused(
        make(**elsewhere, num_train_epochs=4, **changed)
    )
    assert RunFolder.claim(make(**elsewhere, num_train_epochs=4, seed=1)).checkpoint == finished


def test_a_run_from_another_folder_s_checkpoint_is_resumed_by_the_same_command(make, tmp_path):
    recipe = make(resume_from_checkpoint=str(write_checkpoint(tmp_path / "from" / "checkpoint-8", 8, 2.0)))
    run = do_run(recipe, finish=False)
    assert run.begins_elsewhere
    assert recorded(recipe).training["resume_from_checkpoint"] == str(tmp_path / "from" / "checkpoint-8")
    last = write_checkpoint(run.path / "checkpoint-10", 10, 2.5)
    assert RunFolder.claim(recipe).checkpoint == last
    assert not RunFolder.claim(recipe).begins_elsewhere
    assert "training.resume_from_checkpoint" in refused(make())


def test_a_run_whose_checkpoint_lost_its_optimizer_says_that_a_new_one_begins(tmp_path, caplog):
    place = write_checkpoint(tmp_path / "checkpoint-8", 8, 2.0)
    trainer = Mock()
    train_from(place, trainer)
    assert not caplog.messages
    (place / "optimizer.pt").unlink()
    train_from(place, trainer)
    assert caplog.messages == ["checkpoint-8 has no optimizer.pt: the optimizer and the schedule start from scratch"]
    assert trainer.train.call_args.kwargs == {"resume_from_checkpoint": str(place)}


# The rows


def test_the_rows_of_a_run_are_recorded_and_another_one_s_are_refused_by_name(make):
    recipe = make()
    run = RunFolder.claim(recipe)
    with run.open(recipe, DATA):
        pass
    assert RunFolder(run.path).data == DATA
    write_checkpoint(run.path / "checkpoint-4", 4, 1.0)
    again = RunFolder.claim(recipe)
    again.refuse_changed_data(DATA)
    with pytest.raises(UserError) as error:
        again.refuse_changed_data({**DATA, "train": SplitFacts(21, "z"), "test": SplitFacts(8, "y")})
    assert "train: 19 rows before, 21 now; test: 8 rows before and now, but other images" in str(error.value)
    assert "validation" not in str(error.value)
    RunFolder.claim(recipe, overwrite=True).refuse_changed_data({"train": SplitFacts(21, "z")})


def test_a_finished_run_keeps_what_it_recorded(make):
    recipe = make()
    run = RunFolder.claim(recipe)
    with run.open(recipe, DATA):
        pass
    with run.additions():
        pass
    assert RunFolder(run.path).data == DATA


@pytest.mark.parametrize("data", [None, [], {"train": 3}, {"train": {"rows": 3}}])
def test_a_mark_without_rows_or_with_damaged_ones_says_nothing(make, data):
    run = do_run(make(), finish=False)
    mark = json.loads((run.path / RUN_MARK).read_text())
    (run.path / RUN_MARK).write_text(json.dumps(mark | {"data": data}))
    assert RunFolder(run.path).data == {}
    write_checkpoint(run.path / "checkpoint-4", 4, 1.0)
    RunFolder.claim(make()).refuse_changed_data(DATA)


def test_a_split_that_comes_or_goes_is_a_change():
    without = {role: facts for role, facts in DATA.items() if role != "validation"}
    assert changes(DATA, without) == {"validation": "5 rows before, no now"}
    assert changes(without, DATA) == {"validation": "no rows before, 5 now"}
    assert changes(DATA, from_json(json.loads(json.dumps(to_json(DATA))))) == {}
