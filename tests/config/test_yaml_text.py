import math

import pytest

from hf_accel.config.yaml_text import dump_yaml, parse_yaml
from hf_accel.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("-1E+3", -1000.0),
        ("1.e5", 1e5),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("2:4", "2:4"),
        ("09", "09"),
        ("-.inf", -math.inf),
        ("1e", "1e"),
        ("e5", "e5"),
        ("2024-01-01", "2024-01-01"),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
        ("???", "???"),
        ("=", "="),
        ("no", False),
        ("~", None),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("{<<: {a: 1, b: 2}, a: 3}", {"a": 3, "b": 2}),
        ("{1: a}", {1: "a"}),
        ("", None),
    ],
)
def test_a_value_is_read_as_what_it_looks_like(text, value):
    assert parse_yaml(f"key: {text}") == {"key": value}
    assert type(parse_yaml(f"key: {text}")["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "found duplicate key a, line 3, column 1"),
        ("a: {b: 1, b: 1}", "found duplicate key b"),
        ("a: !!int x", "'x' is not of the type int, line 1, column 4"),
        ("a: !!bool maybe", "'maybe' is not of the type bool"),
        ("a: !!set {x}", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("~: 1", "the key None is not text. Put it in quotes"),
        ("true: 1", "the key True is not text"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: .nan", ".nan is not a number that a setting can have"),
        ("a: 0x1ffffffffffffffff", "more than 64 bits"),
        ('a: "\\0"', "character that cannot be written"),
        ("a: &a [*a]", "nested deeper than 40 levels"),
        ("[" * 3000, "nested deeper than 40 levels"),
        ("\n".join(" " * n + "a:" for n in range(100)), "nested deeper than 40 levels"),
        ("a: 1\n---\nb: 1", "expected a single document"),
    ],
)
def test_yaml_that_a_recipe_cannot_hold_is_refused_with_its_place(text, message):
    with pytest.raises(UserError) as caught:
        parse_yaml(text)
    assert str(caught.value).startswith("not valid YAML: ")
    assert message in str(caught.value)


def test_written_values_read_back_as_the_same():
    texts = [
        "1e-5",
        "2E5",
        ".5",
        "no",
        "2024-01-01",
        "1:30",
        "0x1f",
        "~",
        "",
        "=",
        "<<",
        "a: b",
        "#1",
        " x ",
        "ä\nb",
        "1_0",
    ]
    values = {
        "texts": texts,
        "numbers": [1e-5, 1e16, 3, -0.0, math.inf],
        "flags": [True, None],
        **dict.fromkeys(texts, 1),
    }
    assert parse_yaml(dump_yaml(values)) == values
    shared = [1, 2]
    assert "&" not in dump_yaml({"a": shared, "b": shared})
