"""A module whose `main` is called in a forked process."""

import os
import signal
import time

from hf_accel.errors import UserError


def main(argv: list[str]) -> int:
    if argv == ["hang"]:
        time.sleep(60)
    if argv == ["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if not argv[0].isdigit():
        raise UserError("expected a number")
    print(f"called with {argv[0]}")
    return int(argv[0])
