"""Reading the tables that a command prints."""

import re


def unpadded(table: str) -> str:
    """The text with single spaces, so that a test does not depend on how wide the columns are."""
    return re.sub(r" +", " ", table)
