from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from streamsal.errors import Interrupted, Stopped
from streamsal.signals import leave_on_signals, stop_on_signals, stopped


def test_signals_set_a_flag_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert stop() == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == "SIGUSR1"  # the first one
        with pytest.raises(KeyboardInterrupt):  # Ctrl-C once more
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


IMPATIENT = """
import atexit, os, signal
from streamsal.signals import stop_on_signals

atexit.register(os.kill, os.getpid(), signal.SIGINT)
with stop_on_signals():
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_once_more_while_python_ends_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_signals_where_no_flag_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), leave_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_reasons_to_stop_have_their_exit_codes() -> None:
    assert stopped("SIGTERM", "here").exit_code == 75
    assert isinstance(stopped("Ctrl-C", "here"), Interrupted) and Interrupted.exit_code == 130
