"""How fast a run is, and what a ratio of two runs says."""
