"""The Trainer: its arguments, its wiring, evaluation, and the end of a run."""
