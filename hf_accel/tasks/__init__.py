"""One object per domain, with all that a run needs to know of it."""
