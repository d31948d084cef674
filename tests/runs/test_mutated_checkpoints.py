"""Checkpoints and their manifests changed at random: noticed, and never used; `verify` says so in words."""

import json
import pathlib
import shutil
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_accel import cli, verify
from hf_accel.errors import UserError
from hf_accel.runs import manifest
from hf_accel.runs.folder import RunFolder
from tests.support.checkpoints import write_checkpoint
from tests.support.mutations import JSON, cases, changed

pytestmark = pytest.mark.slow

FILES = (
    "model.safetensors",
    "optimizer.pt",
    "trainer_state.json",
    "config.json",
    "method_state_0.pth",
    manifest.MANIFEST,
)


def says_the_same(content: bytes, before: bytes) -> bool:
    """Whether two manifests list the same files, of the same step."""
    try:
        values, whole = json.loads(content), json.loads(before)
        return all(values[name] == whole[name] for name in ("complete", "files", "step"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


@pytest.mark.parametrize("name", FILES)
@cases
@given(data=st.data())
def test_a_changed_checkpoint_is_not_used_and_the_one_before_is(name, data):
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        older, newer = (write_checkpoint(folder / f"checkpoint-{step}", step) for step in (4, 8))
        before = (newer / name).read_bytes()
        content = data.draw(changed(before))
        (newer / name).write_bytes(content)
        is_same = content == before or (name == manifest.MANIFEST and says_the_same(content, before))
        code = cli.run(verify.main, [str(newer)])
        used = RunFolder(folder).checkpoints.newest_whole()
        if name == manifest.MANIFEST and not is_same:
            # facts that are not compared here, such as the number of processes, may differ
            assert used in (older, newer)
        else:
            assert used == (newer if is_same else older)
        assert code == (0 if used == newer else 1)
        shutil.rmtree(older)
        if used == older:
            with pytest.raises(UserError, match=r"the checkpoints are damaged"):
                RunFolder(folder).checkpoints.newest_whole()


@cases
@given(values=JSON)
def test_any_json_as_a_manifest_is_read_or_refused(values):
    with tempfile.TemporaryDirectory() as place:
        (pathlib.Path(place) / manifest.MANIFEST).write_bytes(json.dumps(values).encode("utf-8", "surrogatepass"))
        assert manifest.damage(pathlib.Path(place)) is not None
