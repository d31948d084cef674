"""The structure of the package: its contract, docs/architecture.md and the code say the same."""

import ast
import graphlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import hf_accel.train

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_accel"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LONGEST_FUNCTION = 60  # lines, from `def` to the last one, docstring included
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def contract_floors() -> dict[str, int]:
    """Package or module -> its floor, 1 at the bottom, from the contract in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    layers = [[name.strip().removeprefix("hf_accel.") for name in layer.split("|")] for layer in contract["layers"]]
    return {name: floor for floor, names in enumerate(reversed(layers), start=1) for name in names}


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Modules of this package that a module imports, in functions too, without those for type checkers."""
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in FILES or node.module in FILES:
                    yield name if name in FILES else node.module


def test_the_contract_names_every_package_and_module():
    children = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert set(contract_floors()) == children - {"__init__"}


def test_the_document_lists_the_packages_and_floors_of_the_contract():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| .+ \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert {name: int(floor) for floor, name, _ in rows} == contract_floors()
    assert len(rows) == len(contract_floors())
    allowed = {1: "-", 2: "floor 1"}
    for floor, name, may_import in rows:
        assert may_import == allowed.get(int(floor), f"floors 1 to {int(floor) - 1}"), name


def test_the_document_shows_train_as_it_is():
    assert f"```python\n{inspect.getsource(hf_accel.train.train)}```" in DOCUMENT


def test_no_modules_import_each_other_in_a_circle():
    imports = {name: set(imported_modules(ast.parse(path.read_text("utf-8")))) for name, path in FILES.items()}
    assert sum(map(len, imports.values())) > len(FILES)  # the imports are seen at all
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


def test_every_function_fits_a_screen():
    long = [
        f"{name}.{node.name}: {lines} lines"
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []
