"""Signals ask a computation to stop; it stops where nothing is lost.

Handlers only set a flag or raise: two signals at once must not meet a handler that writes.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import Interrupted, Stopped

Stop = Callable[[], str]  # the name of the signal that asks to stop, or nothing


def stopped(reason: str, where: str) -> Stopped:
    kind = Interrupted if reason == "Ctrl-C" else Stopped
    return kind(f"stopped by {reason}: {where}; run the same command again to go on")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGTERM, SIGUSR1 and Ctrl-C set a flag that `infer` asks for after each block; a second Ctrl-C ends at once.

    Handlers do nothing else: two signals at once must not meet a handler that writes.
    """
    seen: list[str] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and "Ctrl-C" in seen:
            raise KeyboardInterrupt
        seen.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before: Mapping[int, Any] = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield lambda: seen[0] if seen else ""
    finally:
        if "Ctrl-C" in seen:  # one more while Python ends would be told as a traceback of whatever is being tidied up
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end what asks for no flag, such as planning and merging, at once, as Ctrl-C does.

    Raises Stopped in the block: files there appear whole or not at all.
    """

    def leave(number: int, frame: object) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command again to go on")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
