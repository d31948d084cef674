"""The results of a run as a file, a table and a page."""
