"""Loading TensorFlow without its start-up messages."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator


def import_keras_quietly() -> None:
    """Import keras and its backend; what they write to stderr meanwhile is shown only if that fails.

    TensorFlow writes a part of its messages past Python and before it reads TF_CPP_MIN_LOG_LEVEL, so the descriptor
    itself is turned aside. Ctrl-C waits until it is over: in the middle of it TensorFlow would crash.
    """
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(ValueError):
        sys.stderr.flush()
    kept = os.dup(2)
    with _interrupt_later(), tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            importlib.import_module("keras")
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Keep Ctrl-C back until the block ends; only the main thread can, in others it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
