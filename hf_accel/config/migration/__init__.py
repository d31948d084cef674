"""Flags of other tools and the settings here that do the same: one table per tool, from which answers and docs are made."""
