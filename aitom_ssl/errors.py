"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """A mistake in what the user gave: the message says what was received, what was expected and how to mend it.

    Commands print it as one line and exit with status 2; inside a program it is an ordinary ValueError.
    """
