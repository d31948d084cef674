"""Where the time, memory and I/O of a run go, phase by phase, and what bounds it."""
