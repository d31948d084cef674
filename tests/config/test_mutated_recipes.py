"""Recipes damaged at random: each loads or is refused in words; nothing else happens, and nothing takes long.

HF_ACCEL_MUTATIONS is the number of damaged recipes, for example 10000 by hand; MUTATION_SEED chooses others.
"""

import os
import random
import time
from pathlib import Path

import pytest

from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import RecipeFile, load_recipe, shipped_recipes
from hf_accel.config.yaml_text import dump_yaml
from hf_accel.errors import UserError

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("HF_ACCEL_MUTATIONS", "250"))
SEED = int(os.environ.get("MUTATION_SEED", "0"))
DIGITS = RecipeFile.read("digits")
LONGEST_SECONDS = 20.0  # a busy machine included; one recipe takes hundredths

# Written into a file in the place of a value: YAML, not text
VALUES = [
    *("true", "false", "null", "~", "0", "-1", "1.5", "1e400", "-.inf", ".nan", "0x" + "f" * 9000, "9" * 9000, "1:30"),
    *(
        '""',
        '" "',
        "'no'",
        "x",
        "${x}",
        "${oc.env:HOME}",
        "../../x",
        "/",
        ".",
        "..",
        "/dev/null",
        "/dev/stdin",
        "%",
        "=",
    ),
    *(
        '"a\\0b"',
        '"\\ud800"',
        '"\\x1b[2J"',
        '"a\\nb"',
        "ü" * 300,
        "a" * 5000,
        "2024-01-01",
        "12:30:00",
        "<<",
        "*x",
        "&x",
    ),
    *("!!int x", "!!float x", "!!bool x", "!!int ''", "!!str 1", "!!null x", "!!binary aGk=", "!!timestamp 2024-01-01"),
    *(
        "!!set {a}",
        "!!set {}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!python/name:os.system",
        "!x y",
        "! x",
        "!!map [1]",
    ),
    *("[]", "{}", "[1, 2]", "[true]", "[[1]]", "{a: 1}", "{1: 2}", "{null: 1}", "{true: 1}", "{1.5: 1}", "{[a]: 1}"),
    *(
        "{extends: true}",
        "{extends: [a]}",
        "{extends: baseline}",
        "{name: 3}",
        "{name: [x]}",
        "{<<: 1}",
        "{<<: {a: 1}}",
    ),
    *(
        "{start: x}",
        "{start: 8, full_at: [1]}",
        "{hue: null}",
        "{num_ops: 1e3}",
        "{'': 1}",
        '{"\\0": 1}',
        "[0.5, .inf]",
    ),
    *(
        "[" * 50 + "]" * 50,
        "[" * 3000 + "]" * 3000,
        "{a: " * 60 + "1" + "}" * 60,
        "&a [*a]",
        "&a {b: *a}",
        "&a {<<: *a}",
    ),
    *(
        "{? {a: 1} : 2}",
        "{? : 2}",
        "{a: 1, a: 2}",
        "|\n  x",
        ">",
        "- a",
        "'",
        '"',
        "]",
        "\t",
        "@",
        "`",
        "\x01",
        "\ufeff",
    ),
    *("{model: 3}", "{training: [1]}", "{data: {augment: 5}}", "{training: {optim: muon, optim_args: =}}", "momentum"),
]
KEYS = ["extends", "name", "variant", "model", "data", "training", "variants", "augment", "seed", "optim_args", "args"]
ODD_KEYS = ["1", "null", "true", "[a]", "'..'", "'a/b'", "2024-01-01", "!!int x", "''", "x" * 3000, "<<", "? a", "*x"]


def lines_of(recipe: dict) -> list[str]:
    return dump_yaml(recipe).splitlines()


def split_line(line: str) -> tuple[str, str, str]:
    """Indent and dashes, key, value of a line of block YAML."""
    body = line.lstrip(" -")
    key, _, value = body.partition(":")
    return line[: len(line) - len(body)], key, value


def mutate(lines: list[str], dice: random.Random) -> list[str]:
    lines = list(lines)
    place = dice.randrange(len(lines))
    indent, key, value = split_line(lines[place])
    kind = dice.randrange(9)
    if kind <= 2:
        lines[place] = f"{indent}{key}: {dice.choice(VALUES)}"
    elif kind == 3:
        lines[place] = f"{indent}{dice.choice(KEYS + ODD_KEYS)}:{value}"
    elif kind == 4:
        lines.insert(place, f"{indent}{dice.choice(KEYS + ODD_KEYS)}: {dice.choice(VALUES)}")
    elif kind == 5:
        lines.insert(0, f"{dice.choice(KEYS)}: {dice.choice(VALUES)}")
    elif kind == 6:
        lines[place] = " " * dice.randrange(8) + lines[place].lstrip()
    elif kind == 7:
        del lines[place : place + dice.randrange(1, 4)]
    else:
        start = dice.randrange(len(lines[place]) + 1)
        odd = dice.choice(
            ["'", '"', "{", "]", ":", "#", "&a ", "*a ", "!!", "%", "\t", "\0", "\ud800", "-", "?", "\x85"]
        )
        lines[place] = lines[place][:start] + odd + lines[place][start:]
    return lines or ["{}"]


def damaged_recipes(count: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    sources = [lines_of(RecipeFile.read(name).raw) for name in shipped_recipes()]
    written = [path.read_text("utf-8").splitlines() for path in shipped_recipes().values()]
    texts = []
    for _ in range(count):
        lines = dice.choice(sources + written)
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            lines = mutate(lines, dice)
        texts.append("\n".join(lines))
    return texts


def load_everything(path: Path) -> None:
    """The recipe as it stands, and one of its variants; a recipe that loads is the same after it is written and read again."""
    file = RecipeFile.read(path)
    recipe = file.recipe()
    again = path.with_name("again.yaml")
    recipe.write(again)
    assert load_recipe(again) == recipe.without_secrets()
    for variant in file.variants[:1] + file.variants[-1:]:
        file.recipe(variant)


def test_a_damaged_recipe_loads_or_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    outcomes, longest = {"loaded": 0, "refused": 0}, 0
    for number, text in enumerate(damaged_recipes(COUNT, SEED)):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        start = time.process_time()
        try:
            load_everything(path)
            outcomes["loaded"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            longest = max(longest, len(str(error)))
        except BaseException as error:
            pytest.fail(f"recipe {number}: {type(error).__name__}: {error}\n{text[:5000]}")
        assert time.process_time() - start < LONGEST_SECONDS, f"recipe {number}:\n{text[:5000]}"
    print(outcomes)
    assert longest < 20_000  # characters of a message
    assert min(outcomes.values()) > COUNT / 20  # the damage is neither always fatal nor without effect


@pytest.mark.parametrize("text", VALUES)
def test_any_text_is_a_value_of_a_flag_or_is_refused(text):
    for flag in (
        "data.name",
        "data.augment.flip",
        "data.class_weights",
        "report_to",
        "seed",
        "variants.a",
        "name.x",
        "x..",
    ):
        try:
            DIGITS.recipe(overrides=overrides_from_flags({flag: text}))
        except UserError:
            continue


@pytest.mark.parametrize("place", ["extends", "name", "variant", "model", "data", "training", "variants", "variants.a"])
@pytest.mark.parametrize(
    "value", [True, 3, 1.5, "x", "a\0b", "x" * 300, "../x", [], [1], ["a", []], {1: 2}, {"a": 1}, b"x"]
)
def test_any_python_value_in_any_section_loads_or_is_refused(place, value):
    section, _, key = place.partition(".")
    try:
        DIGITS.recipe(overrides={section: {key: value} if key else value})
    except UserError as error:
        named = section.rstrip("s") in str(error)
    else:
        named = True
    assert named


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b", "x" * 5000, "x.yaml\0", "\ud800", "/dev/null", "recipes", "~"])
def test_any_text_as_the_name_of_a_recipe_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        load_recipe(name)


def test_aliases_of_aliases_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 {training: {seed: 1}}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    lines += ["b0: &b0 [1, 1]", *(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 10)}]" for n in range(1, 12))]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    start = time.process_time()
    with pytest.raises(UserError, match="more than 20000 values"):
        load_recipe(tmp_path / "bomb.yaml")
    assert time.process_time() - start < LONGEST_SECONDS


def test_a_file_that_is_not_a_recipe_is_refused_unread(tmp_path):
    (tmp_path / "weights.yaml").write_bytes(bytes(2 << 20))
    with pytest.raises(UserError, match="holds more than 1 MiB"):
        load_recipe(tmp_path / "weights.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Blüte".encode("latin-1"))
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(tmp_path / "latin.yaml")
