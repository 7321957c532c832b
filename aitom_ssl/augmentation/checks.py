"""Checks of constructor arguments; each message names the argument, what it may be and what was received."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from aitom_ssl.errors import InputError


def check_probability(name: str, value: float) -> float:
    """`value` as a float from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise InputError(f"`{name}` is a probability from 0 to 1. Received: {name}={value!r}.")
    return float(value)


def check_number(name: str, value: float, low: float, high: float) -> float:
    """`value` as a float from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise InputError(f"`{name}` is a number from {low:g} to {high:g}. Received: {name}={value!r}.")
    return float(value)


def check_range(name: str, value: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """`value` as a pair of floats in order, both from `low` to `high`."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(v, Real) and not isinstance(v, bool) for v in pair)
        or not low <= pair[0] <= pair[1] <= high
    ):
        raise InputError(
            f"`{name}` is a pair (smallest, largest) between {low:g} and {high:g}. Received: {name}={value!r}."
        )
    return float(pair[0]), float(pair[1])


def check_flag(name: str, value: bool) -> bool:
    """`value`, a bool."""
    if not isinstance(value, bool):
        raise InputError(f"`{name}` is True or False. Received: {name}={value!r}.")
    return value
