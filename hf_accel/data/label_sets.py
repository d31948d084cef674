"""Cells of a table that say which labels each image has -> the names of these labels.

Three forms: several columns of 0 and 1, one for each label; one column of lists of names or of class numbers; one column of
text, in which names are separated by the first of `|`, `;` and `,` that occurs in it. A cell without a name is an image
without a label. Tables of every kind end here as plain cells.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hf_accel.config.sections import DataSettings
from hf_accel.data.labels import normal_name, unique_names
from hf_accel.data.metadata import ReadCells
from hf_accel.errors import UserError

COLUMN = "labels"  # of the tables that are made of other ones
LABEL_SET_COLUMNS = (
    "labels",
    "tags",
    "label",
    "tag",
    "categories",
    "classes",
    "attributes",
    "category",
    "class",
    "target",
)
SEPARATORS = "|;,"
FLAGS: dict[Any, bool] = {  # whether an image has the label of a column
    **dict.fromkeys((0, "0", "0.0", "false"), False),
    **dict.fromkeys((1, "1", "1.0", "true"), True),
}
Cells = Mapping[str, Sequence[Any]]


def label_sets_of_table(
    where: str, table: dict[str, list], settings: DataSettings, taken: Collection[str | None]
) -> ReadCells | None:
    """The names of the labels of each row of a plain table; None: no columns of labels can be chosen.

    Args:
        where: for messages.
        taken: the columns that hold something else.
    Raises:
        UserError: a named column is absent, or a cell cannot be understood; the message names its row.
    """
    columns = choose_label_columns(where, table, settings, taken)
    return None if columns is None else read_label_sets(where, table, columns)


def choose_label_columns(
    where: str, table: Cells, settings: DataSettings, taken: Collection[str | None]
) -> tuple[str, ...] | None:
    """The columns that are named; else one by name, all those of 0 and 1, the only one of lists, or the only one of text.

    Raises:
        UserError: a named column is absent.
    """
    named = settings.label_column
    if named is not None:
        asked = (named,) if isinstance(named, str) else tuple(named)
        absent = next((name for name in asked if name not in table), None)
        if absent is not None:
            raise UserError(
                f"data.label_column is {absent}, and {where} has no such column. Columns: {', '.join(table) or 'none'}."
            )
        return asked
    left = [name for name in table if name not in taken]
    flags = tuple(name for name in left if are_flags(table[name]))
    by_name = [name for name in LABEL_SET_COLUMNS if name in left and name not in flags]
    if by_name:
        return (by_name[0],)
    if len(flags) > 1:
        return flags
    lists, texts = (
        [name for name in left if name not in flags and any(isinstance(cell, kind) for cell in table[name])]
        for kind in (list | tuple, str)
    )
    only = lists or texts
    return (only[0],) if len(only) == 1 else None


def are_flags(cells: Sequence[Any]) -> bool:
    """Whether a column says of each row if it has a label."""
    return len(cells) > 0 and all(_flag(cell) is not None for cell in cells)


def separator_of(table: Cells, columns: Sequence[str]) -> str | None:
    """What stands between names in a column of text; None: each cell is one name, or no text."""
    texts = [cell for cell in table[columns[0]] if isinstance(cell, str)]
    return next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)


def read_label_sets(where: str, table: Cells, columns: Sequence[str], separator: str | None = None) -> ReadCells:
    """The names of the labels of each row.

    Args:
        separator: of a column of text, as another split has it; None: that of the column.
    Raises:
        UserError: a cell cannot be understood; the message names its row.
    """
    if len(columns) > 1:
        return ReadCells(COLUMN, _names_of_flags(where, table, columns), list(columns))
    column, cells = columns[0], table[columns[0]]
    if are_flags(cells) and len(set(cells)) > 1:
        raise UserError(
            f"{where}: {column} holds 0 and 1 only, which is one label. Expected several such columns, or names of labels."
        )
    separator = separator or separator_of(table, columns)
    return ReadCells(
        column, [_names_in(f"{where}, row {row}: {column}", cell, separator) for row, cell in enumerate(cells)]
    )


def _names_of_flags(where: str, table: Cells, columns: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(len(table[columns[0]]))]
    for column in columns:
        for row, cell in enumerate(table[column]):
            flag = _flag(cell)
            if flag is None:
                raise UserError(
                    f"{where}, row {row}: {column} is {cell!r}, expected 0 or 1. Correct it, or remove the row; with "
                    "data.label_column name the columns of the labels alone."
                )
            if flag:
                found[row].append(column)
    return found


def _flag(cell: Any) -> bool | None:
    if isinstance(cell, str):
        cell = cell.strip().lower()
    return FLAGS.get(cell) if isinstance(cell, str | int | float) else None


def _names_in(where: str, cell: Any, separator: str | None) -> list[str]:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, str):
        text = cell.strip()
        is_list = text.startswith("[") and text.endswith("]")
        cell = _parsed(where, text) if is_list else text.split(separator) if separator else [text]
    if isinstance(cell, int) and not isinstance(cell, bool):
        cell = [cell]
    if not isinstance(cell, list | tuple | set):
        raise UserError(
            f"{where} is {cell!r}, expected a list of labels, or text with names between {' '.join(SEPARATORS)}"
        )
    wrong = [label for label in cell if isinstance(label, bool) or not isinstance(label, str | int)]
    if wrong:
        raise UserError(f"{where} is {list(cell)!r}, which holds {wrong[0]!r}, expected names or whole numbers")
    return unique_names(str(label).strip() for label in cell)


def _parsed(where: str, text: str) -> Any:
    """A list that was written as text, as pandas writes it into a CSV."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{where} is {text!r}, expected a list of names between quotation marks") from error


def ordered_names(names: Collection[str]) -> list[str]:
    """Numbers by their value before text by its letters.

    >>> ordered_names({"10", "9", "b", "a"})
    ['9', '10', 'a', 'b']
    """
    return sorted(map(normal_name, names), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
