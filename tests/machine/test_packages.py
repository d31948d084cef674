"""The packages that hf_accel declares, and whether they are installed."""

import tomllib
from pathlib import Path

import pytest

from hf_accel.machine import packages
from hf_accel.machine.packages import Package, declared

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def test_a_checkout_declares_what_its_project_file_does():
    found = declared()
    assert found.pop(None) == PROJECT["dependencies"]
    assert set(found) == set(PROJECT["optional-dependencies"]) - {"test"}


def test_an_installed_package_declares_what_its_metadata_do(monkeypatch, tmp_path):
    class Metadata:
        def get_all(self, name):
            return {
                "Provides-Extra": ["lora", "test"],
                "Requires-Dist": ["torch>=2.11", "x>=1; sys_platform == 'nowhere'", "peft>=0.18; extra == 'lora'",
                                  "pytest; extra == 'test'"],
            }[name]  # fmt: skip

    (tmp_path / "pyproject.toml").write_text('project = {name = "another"}')
    monkeypatch.setattr(packages, "_PYPROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(packages.importlib.metadata, "metadata", lambda name: Metadata())
    assert declared() == {None: ["torch>=2.11"], "lora": ["peft>=0.18; extra == 'lora'"]}
    names = [(package.name, package.extra, package.expected) for package in packages.packages()]
    assert names == [("torch", None, ">=2.11"), ("peft", "lora", ">=0.18")]


def test_a_folder_that_is_not_installed_declares_nothing(monkeypatch, tmp_path):
    def absent(name):
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "_PYPROJECT", tmp_path / "absent.toml")
    monkeypatch.setattr(packages.importlib.metadata, "metadata", absent)
    assert packages.packages() == []


@pytest.mark.parametrize(
    ("installed", "is_met"), [("2.11.0", True), ("2.15.0+cu130", True), ("3.0rc1", True), ("2.9", False), (None, False)]
)
def test_a_version_is_compared_as_a_version(installed, is_met):
    assert Package("torch", ">=2.11", None, installed).is_met is is_met
