"""What loading TensorFlow leaves on stderr, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code, **more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_importing_says_nothing_and_stderr_works_afterwards():
    done = run(
        "import sys; from aitom_ssl.training.quiet import import_keras_quietly; import_keras_quietly();"
        "assert 'keras' in sys.modules; print('after', file=sys.stderr)"
    )
    assert (done.returncode, done.stderr) == (0, "after\n")


@pytest.mark.parametrize("failure", ["raise ImportError('broken')", "import os; os.write(2, b'why'); raise OSError"])
def test_a_failing_import_is_shown(failure, tmp_path):
    (tmp_path / "keras.py").write_text(failure)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = run(code + "from aitom_ssl.training.quiet import import_keras_quietly; import_keras_quietly()")
    assert done.returncode == 1
    assert "broken" in done.stderr or "why" in done.stderr


def test_ctrl_c_waits_for_the_import_to_end(tmp_path):
    pressed = "os.kill(os.getpid(), signal.SIGINT); os.write(2, b'noise'); ended = True"
    (tmp_path / "keras.py").write_text(f"import os, signal; {pressed}")
    done = run(
        f"import signal, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from aitom_ssl.training.quiet import import_keras_quietly\n"
        "try: import_keras_quietly()\n"
        "except KeyboardInterrupt: print(sys.modules['keras'].ended, file=sys.stderr)\n"
    )
    assert (done.returncode, done.stderr) == (0, "True\n")
