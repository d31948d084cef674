"""Text that may be published: without tokens, and without folders of this machine."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import hf_accel

_PACKAGE = Path(hf_accel.__file__).resolve().parent

_SECRET_NAME = r"(?:token|password|passwd|secret|api[-_]?key|credentials?)"
_SECRET_FLAG = re.compile(rf"-.*{_SECRET_NAME}", re.IGNORECASE)
_SECRET_ASSIGNMENT = re.compile(rf"({_SECRET_NAME}[\"']?\s*[=:]\s*)[^\s,;&}}\]]+", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"(?:hf|api_org)_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|sk-[\w-]{16,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]+\.[\w-]+\.[\w-]+"  # OpenAI and alike, AWS, JSON web tokens
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


# An absolute path inside a longer argument; the look-behind and look-ahead keep 'user/model', './here' and 'https://'.
_ABSOLUTE_PATH = re.compile(r"(?:file://|(?<![\w./~-])~?)(?!//)(?<![\w.])/[^\s,;:'\"\[\]{}()]*")


def published_command(argv: Sequence[str]) -> str:
    """The command line, quoted for a shell and fit to be published.

    Tokens and passwords become ***. An absolute path becomes relative to the current folder where it lies below it, and
    its last part elsewhere.

    >>> published_command(["train.py", "--hub_token", "abc", "--data.name", "/home/jane/photos"])
    "train.py --hub_token '***' --data.name photos"
    """
    words = []
    after_secret_flag = False
    for argument in argv[1:]:
        flag, equals, value = argument.partition("=")
        if after_secret_flag and not argument.startswith("--"):
            words.append("***")
        elif flag.startswith("-") and equals:
            words.append(f"{flag}={'***' if _SECRET_FLAG.fullmatch(flag) else cleaned_text(value)}")
        else:
            words.append(cleaned_text(argument))
        after_secret_flag = _SECRET_FLAG.fullmatch(argument) is not None
    return f"{_program(argv[0])} {shlex.join(words)}".strip()


def _program(path: str) -> str:
    program = Path(path)
    if program.suffix == ".py" and program.resolve().parent == _PACKAGE:
        return f"python -m hf_accel.{program.stem}"
    return program.name


def cleaned_text(argument: str) -> str:
    argument = _SECRET_VALUE.sub("***", argument)
    argument = _SECRET_ASSIGNMENT.sub(r"\1***", argument)
    argument = _URL_LOGIN.sub("***@", argument)
    if argument.startswith(("/", "~")):
        return _shortened(argument)
    return _ABSOLUTE_PATH.sub(lambda found: _shortened(found.group()), argument)


def _shortened(path: str) -> str:
    absolute = Path(path.removeprefix("file://"))
    if absolute.is_relative_to(Path.cwd()):
        return str(absolute.relative_to(Path.cwd()))
    # A home folder's own name is a person's. Path.home() would raise for a user without one.
    return "~" if str(absolute) == os.path.expanduser("~") else absolute.name or "/"
