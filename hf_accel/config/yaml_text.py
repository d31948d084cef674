"""YAML of recipes: read into plain values, or refused; written so that it reads back as the same values.

PyYAML's safe loader with five changes. `2e-5` is a number and `2:4` is text, as in YAML 1.2; a date is text; a key that
appears twice is refused; and everything that a recipe cannot hold (sets, bytes, keys that are lists) is refused where it
stands.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.scanner import ScannerError

from hf_accel.errors import UserError

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
# A recipe has some hundred values. Aliases of aliases can stand for billions, and take hours to write out.
_MOST_VALUES = 20_000
_DEEPEST = 40


def _implicit_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """First character of a word -> what it may be, by YAML tag; dates are left out."""
    left_out = {_PREFIX + "timestamp", _PREFIX + "value", _PREFIX + "float", _PREFIX + "int"}
    resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in left_out]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+.0123456789":
        resolvers[first] = [(_PREFIX + "float", _FLOAT), (_PREFIX + "int", _INT), *resolvers.get(first, [])]
    return resolvers


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _implicit_resolvers()
    yaml_constructors = {  # noqa: RUF012 - as the base class has it
        tag: function
        for tag, function in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_PREFIX) in _PLAIN
    }

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        self._refuse_depth(self.flow_level)  # here, because the scanner's work grows with the square of the depth
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        self._refuse_depth(len(self.indents))
        return super().add_indent(column)

    def _refuse_depth(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise ScannerError(None, None, f"nested deeper than {_DEEPEST} levels", self.get_mark())

    def construct_document(self, node: yaml.Node) -> Any:
        _refuse_repeated_keys(node)
        _refuse_too_much(node)
        return super().construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # `!!int x`, `!!bool maybe`: Python's own errors
            raise _refusal(f"{node.value!r} is not of the type {node.tag.removeprefix(_PREFIX)}", node) from None
        if isinstance(value, int) and value.bit_length() > 64:
            raise _refusal("the number has more than 64 bits", node)
        if isinstance(value, float) and value != value:
            raise _refusal(f"{node.value} is not a number that a setting can have", node)
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise _refusal("the text has a character that cannot be written to a file", node)
        return value

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)  # type: ignore[arg-type]  # it refuses other nodes itself
        for key in mapping:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise _refusal(f"the key {key!r} is not text. Put it in quotes", node)
        return mapping


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as something else, such as "1e-5"."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *found]
        for first, found in _implicit_resolvers().items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str | bytes) -> Any:
    """Plain values: None, bool, int, float, str, list, and dict with keys that are text or whole numbers.

    Raises:
        UserError: not YAML, or YAML that no recipe can hold; the message says where in the text.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"not valid YAML: {problem}{place}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not valid YAML: {' '.join(str(error).split())}") from None


def dump_yaml(values: dict[str, Any]) -> str:
    """`parse_yaml` of the result gives equal values; the order of keys stays."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flow_yaml(value: Any) -> str:
    """A value as it stands in a recipe, in one line; numbers to four places."""
    if isinstance(value, list):
        value = [round(part, 4) if isinstance(part, float) else part for part in value]
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("\n...\n").strip()


def _refusal(problem: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _refuse_too_much(root: yaml.Node) -> None:
    """Count values as they are after every alias is replaced by its value; an alias that contains itself never ends."""
    waiting, values = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        values += 1
        if values > _MOST_VALUES:
            raise _refusal(f"more than {_MOST_VALUES} values, aliases counted as often as they are used", root)
        if depth > _DEEPEST:
            raise _refusal(f"nested deeper than {_DEEPEST} levels", node)
        waiting += [(child, depth + 1) for child in _children(node)]


def _refuse_repeated_keys(root: yaml.Node) -> None:
    """PyYAML takes the last one silently. A key merged from elsewhere (`<<: *other`) may be replaced."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        waiting += _children(node)
        names = set()
        for key in [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []:
            if isinstance(key, yaml.ScalarNode) and key.tag != _PREFIX + "merge":
                if (key.tag, key.value) in names:
                    raise _refusal(f"found duplicate key {key.value}", key)
                names.add((key.tag, key.value))
