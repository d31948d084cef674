"""Fixtures of the commands."""

import pytest


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    """Writes the recipe of small networks and images, changed by patches, to a file; returns its path."""

    def make(*patches):
        path = tmp_path / "mine.yaml"
        tiny_recipe(*patches).write(path)
        return str(path)

    return make
