"""Every document: its links lead somewhere, its English and that of the code is plain, and CI runs what it says."""

import ast
import io
import json
import re
import subprocess
import tokenize
import tomllib
from pathlib import Path

import pytest
import yaml

import hf_accel

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MARKDOWN = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/README.md", "outputs/README.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
RECIPES = [*sorted((ROOT / "recipes").rglob("*.yaml")), ROOT / "benchmarks" / "tricks.yaml"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted((ROOT / "hf_accel").rglob("*.py"))

# Words and phrases that a practitioner would have to translate, with those to write instead: see CONTRIBUTING.md.
DIALECT = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(go|goes|went|going) on\b": "resume, continue",
    r"\bcut off\b": "interrupted",
    r"\bbeside\b": "next to",
    r"\banew\b": "from scratch, again",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b|less\b)": "is not a",
    r"\barms?\b": "run, variant",
    r"\btimes as fast\b": "speed-up",
    r"\b(one|a|an|each) [\w-]+ an? (row|class|epoch|image|project|worker|process|phase|rank|file)\b": "per",
    r"\b(is|are) to be had\b": "can be gained",
}


def english_of(path: Path) -> str:
    """The sentences of a document, without its code."""
    text = path.read_text("utf-8")
    if path.suffix == ".yaml":
        return "\n".join(line.partition("#")[2] for line in text.splitlines() if "#" in line)
    if path.suffix == ".ipynb":
        text = "\n\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", "`code`", text)


def english_of_code(source: str) -> list[str]:
    """Texts of a module: its comments (those of neighbouring lines are one) and its string literals, docstrings included.

    An expression within a string stands for a word. Strings without a space are names and keys, not English.
    """
    comments: dict[int, str] = {}  # last line -> text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            comments[line] = f"{comments.pop(line - 1, '')} {token.string.removeprefix('#')}"
    texts, inner = list(comments.values()), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "code" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            texts.append(node.value)
    return [re.sub(r"`[^`]*`", "`code`", text) for text in texts if " " in text.strip()]


def dialect_in(text: str) -> list[str]:
    text = " ".join(text.split())
    return [
        f"{text[max(0, found.start() - 40) : found.end() + 40]!r}: write {better}"
        for pattern, better in DIALECT.items()
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


def in_project(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*MARKDOWN, *RECIPES, *NOTEBOOKS], ids=in_project)
def test_a_document_is_plain_english(path):
    assert dialect_in(english_of(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=in_project)
def test_comments_and_texts_of_code_are_plain_english(path):
    assert [found for text in english_of_code(path.read_text("utf-8")) for found in dialect_in(text)] == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1  # the file beside it",
        "# a run that was cut\n# off",
        '"""It goes on with\nthe same command."""',
        "def f():\n    raise ValueError(f'{x}: {y} is no '\n                     'name')",
        "x = f'{a} times as fast'",
        'x = "one sub-folder a class"',
    ],
)
def test_dialect_is_found_in_code(source):
    assert len([found for text in english_of_code(source) for found in dialect_in(text)]) == 1


def test_names_in_code_are_not_read_as_english():
    assert english_of_code("arms = beside['anew'], f'arm_{number}'") == []


@pytest.mark.parametrize(
    "text",
    [
        "hf_accel mends these.",
        "A run that was cut\noff",
        "it goes on with the same command",
        "the file beside it",
        "written anew",
        "This is no name.",
        "all arms together",
        "twice as much, 2.2 times as fast",
        "one sub-folder a class",
        "little more is to be had",
    ],
)
def test_dialect_is_found(text):
    assert len(dialect_in(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "There is no fused form.",
        "there are no validation rows",
        "which is no longer slower",
        "harmless warmth",
        "besides this",
        "three seconds a step",
        "recommended, amended",
        "one loss per row",
    ],
)
def test_plain_english_is_not_taken_for_dialect(text):
    assert dialect_in(text) == []


@pytest.mark.parametrize("path", MARKDOWN, ids=in_project)
def test_every_relative_link_leads_to_a_file_or_a_heading(path):
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        assert file or anchor in headings, target
        assert (path.parent / file).exists(), target


def test_documents_and_modules_are_found():
    names = {in_project(path) for path in MARKDOWN}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md", "benchmarks/README.md"} <= names
    assert len(RECIPES) > 10
    assert len(MODULES) > 100
    assert NOTEBOOKS


def test_the_address_of_the_repository_is_that_of_the_project_or_stands_nowhere():
    address = PROJECT["urls"].get("Repository")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation.get("repository-code") == address
    tracked = subprocess.run(["git", "grep", "-lI", "OWNER" + "/"], cwd=ROOT, capture_output=True, text=True)
    assert tracked.stdout.splitlines() == []


def test_the_citation_is_complete_and_of_the_latest_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "type", "license"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    version, date = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE).groups()
    assert (citation["version"], str(citation["date-released"])) == (version, date)
    assert hf_accel.__version__ == version


def test_a_workflow_runs_the_stages_of_ci_and_nothing_of_its_own():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    stages = set(re.findall(r"^(\w+)\(\) [{(]", script, re.MULTILINE)) - {"environment"}
    called = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            for step in job["steps"]:
                if "run" in step:
                    (stage,) = re.fullmatch(r"\.ci/run (.+)", step["run"]).groups()
                    called |= set(job["strategy"]["matrix"]["stage"]) if stage == "${{ matrix.stage }}" else {stage}
                else:
                    assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
    assert called == stages == {"quality", "tests", "wheel"}


def test_an_unknown_stage_of_ci_is_refused():
    done = subprocess.run([str(ROOT / ".ci" / "run"), "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: .ci/run")
