"""`python -m hf_accel VERB ...`, the same as `hf-accel VERB ...`."""

from hf_accel.cli import console

if __name__ == "__main__":
    console()
