"""The types of settings that several sections have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue

# Strict types: true is not a number, and "2" is not one either; 2.0 is a whole number.
Whole = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
KNOWN_ONLY = ConfigDict(extra="forbid")


def rising(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError("expected two rising numbers")
    return pair


def expected_words(words: str) -> dict[str, JsonValue]:
    """The words of a message, where the type and the range of a setting do not say what is expected."""
    return {"expected": words}


Share = Annotated[Number, Field(gt=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Probability = Annotated[Number, Field(ge=0, le=1)]
