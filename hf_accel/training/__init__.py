"""The Trainer: its arguments, what is wired to it, evaluation, and the end of a run."""
