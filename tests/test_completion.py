"""What a shell is offered at the press of the tab key."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("argcomplete", reason="needs argcomplete: pip install argcomplete")

OFFERED = {
    "hf-accel tr": {"train"},
    "hf-accel help pr": {"predict"},
    "hf-accel train --over": {"--overwrite"},
    "hf-accel train --learning_r": {"--learning_rate"},
    "hf-accel evaluate outputs/x --data.cache_d": {"--data.cache_dir"},
    "hf-accel train --data.cache m": {"memory"},
    "hf-accel train --recipe vit_cifar10": {"vit_cifar10", "vit_cifar100"},
    "hf-accel train --recipe mi": {"mine.yaml"},
    "hf-accel train --recipe mine.yaml --variant f": {"fast"},
    "hf-accel compare --recipe mine.yaml --variants f": {"fast"},
    "hf-accel tune --budg": {"--budget"},
    "hf-accel recipe val": {"validate"},
    "hf-accel recipe show digi": {"digits"},
    "hf-accel train pho": {"photos/"},
    "hf-accel train --recipe nowhere.yaml --variant ": set(),  # and no traceback
}


@pytest.mark.parametrize("line", OFFERED)
def test_a_shell_is_offered_what_may_come_next(line, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: digits\nvariants: {fast: {training: {bf16: true}}}\n", "utf-8")
    (tmp_path / "photos").mkdir()
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    code = "import sys; from hf_accel.cli import main; main(); sys.exit(1)"  # it ends before that
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {word.strip() for word in answer.read_text("utf-8").split("\n") if word} >= OFFERED[line]
