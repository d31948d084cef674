"""The folder of a run, its checkpoints, its log and the process that does it."""
