"""For the tests of the commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def refused_early():
    """`refused_early(command, flags)` runs it in a process of its own and returns what stands on stderr.

    Fails unless it ends with status 2 and without having loaded Keras, TensorFlow, or one of `heavy`.
    """
    code = (
        "import sys; from aitom_ssl.cli import main; status = main(sys.argv[1], sys.argv[2:]);"
        "print('LOADED', status, *sorted(sys.modules))"
    )

    def run(command, flags, heavy=()):
        line = [sys.executable, "-c", code, command, *flags]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
        word, status, *modules = done.stdout.splitlines()[-1].split()
        assert (word, status) == ("LOADED", "2"), done.stderr
        assert not {"keras", "tensorflow", *heavy} & set(modules)
        return done.stderr

    return run
