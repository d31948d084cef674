"""A file is written whole, or it stays as it was."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from hf_accel.files import compressed_bytes, write_whole


def test_the_text_is_written_as_it_stands_and_nothing_else_is_left(tmp_path):
    text = "één\r\nline\n"
    assert write_whole(tmp_path / "a.txt", text) == tmp_path / "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.txt", "before")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    name = "é" * 127
    write_whole(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new_one(tmp_path):
    """The process dies as the n-th call that touches the file returns."""
    program = (
        "import os, sys; from pathlib import Path; from hf_accel.files import compressed_bytes, write_whole\n"
        "left = int(sys.argv[2])\n"
        "def dying(call):\n"
        "    def wrapped(*args, **kwargs):\n"
        "        global left\n"
        "        result = call(*args, **kwargs)\n"
        "        left -= 1\n"
        "        if left == 0: os.kill(os.getpid(), 9)\n"
        "        return result\n"
        "    return wrapped\n"
        "os.fsync = dying(os.fsync); os.replace = dying(os.replace); Path.replace = dying(Path.replace)\n"
        "write_whole(Path(sys.argv[1]), 'after' * 10000)\n"
    )
    seen = []
    for number in (1, 2, 3):
        path = tmp_path / "a.txt"
        path.write_text("before")
        done = subprocess.run([sys.executable, "-c", program, str(path), str(number)], check=False)
        assert done.returncode == -9
        seen.append({"before": "before", "after" * 10000: "after"}[path.read_text()])
    assert seen == ["before", "after", "after"]


def test_no_module_writes_a_temporary_file_of_its_own():
    """One way to write a file whole; the disk cache builds a whole folder, and a probe of the disk times its own flush."""
    import hf_accel

    package = Path(hf_accel.__file__).parent
    own = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(sign in path.read_text("utf-8") for sign in ('.part"', ".part'", "os.fsync", "temporary.replace"))
    ]
    assert sorted(own) == ["files.py", "machine/probes.py"]


def test_a_file_is_compressed_as_a_whole(tmp_path):
    content = os.urandom(1000) * 3000
    (tmp_path / "file").write_bytes(content)
    assert compressed_bytes(tmp_path / "file") == len(zlib.compress(content, 6))
