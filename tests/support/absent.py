"""Commands in a process that finds some libraries not installed."""

import subprocess
import sys

SCRIPT = """
import importlib, importlib.machinery, sys
absent, found = sys.argv[1].split(","), importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in absent else found(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)  # some libraries call it on an instance
from hf_accel.cli import run
sys.exit(run(importlib.import_module("hf_accel." + sys.argv[2]).main, sys.argv[3:]))
"""
NOT_FOR_EXPORTED = ("torch", "torchvision", "transformers", "timm", "accelerate", "onnx", "datasets", "pyarrow")


def command_without(*words: object, absent: tuple[str, ...] = NOT_FOR_EXPORTED) -> list[str]:
    """The command line of `hf-accel WORDS` without these libraries."""
    return [sys.executable, "-c", SCRIPT, ",".join(absent), *map(str, words)]


def run_without(*words: object, absent: tuple[str, ...] = NOT_FOR_EXPORTED) -> subprocess.CompletedProcess:
    return subprocess.run(command_without(*words, absent=absent), capture_output=True, text=True)
