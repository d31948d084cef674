"""The fastest safe settings of a recipe on this machine, found by measuring."""
