"""The one exception that means "the user can mend this", and what its messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what the user gave: the message says what was received, what was expected and how to mend it.

    Commands print it as one line and exit with status 2; inside a program it is an ordinary ValueError.
    """


def near(name: str, known: Iterable[str], words: str = " Did you mean {}?") -> str:
    """`words` about the known names that `name` is close to, else ''."""
    found = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    return words.format(" or ".join(found)) if found else ""


def reason(error: BaseException) -> str:
    """What another library's `error` says, to stand in a message: one line of up to 300 letters, no full stop."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
