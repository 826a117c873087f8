"""A real browser for tests: Chromium without a window, spoken to over two pipes in the DevTools protocol.

No driver and no port: requests go to the browser's file descriptor 3, answers come from its 4, each ended by a zero
byte. Everything that the page asks of the network and everything that it says on the console is kept.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 60.0


def find_chromium() -> str:
    """Its program; without it the test is skipped, or fails where STREAMSAL_REQUIRE_CHROMIUM=1."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    if os.environ.get("STREAMSAL_REQUIRE_CHROMIUM") == "1":
        pytest.fail("STREAMSAL_REQUIRE_CHROMIUM=1, and there is no Chromium: apt-get install chromium")
    pytest.skip("needs Chromium: apt-get install chromium (STREAMSAL_REQUIRE_CHROMIUM=1 turns this into a failure)")


class Browser:
    """One tab. `requests`: every URL that was asked for; `said`: errors, warnings and logs of the page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._write, self._read = to_browser, from_browser
        self._buffer, self._number, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._keep(answer)

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        self._wait_for_event("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, of a promise what it brings."""
        got = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}; the page said {self.said}"
            time.sleep(0.03)
        return value

    def click(self, x: float, y: float, *, to: tuple[float, float] | None = None) -> None:
        """Press the mouse at a place of the window, and let it go there or at `to`."""
        mouse = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
        if to:
            x, y = to
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=1, **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **mouse)

    def press(self, key: str, *, shift: bool = False) -> None:
        code = {"key": key, "code": "Space" if key == " " else key, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": " "} if key == " " else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_SECONDS)
            assert ready, "Chromium does not answer"
            got = os.read(self._read, 1 << 20)
            assert got, "Chromium has ended"
            self._buffer += got
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _keep(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        method, facts = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(facts["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.said.append(f"{facts['type']}: {facts['args']}")
        elif method == "Log.entryAdded":
            self.said.append(f"{facts['entry']['level']}: {facts['entry']['text']}")

    def _wait_for_event(self, name: str) -> None:
        while not any(event.get("method") == name for event in self._events):
            self._keep(self._receive())


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    program = find_chromium()
    to_browser, from_browser = os.pipe(), os.pipe()

    def connect() -> None:  # after the fork: descriptors 3 and 4 of the browser; high numbers first, as 3 may be in use
        high = [os.dup(to_browser[0]), os.dup(from_browser[1])]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(prefix="streamsal-chromium-", ignore_cleanup_errors=True) as profile:
        arguments = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--no-sandbox",  # Chromium refuses to run as root with one
            "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--autoplay-policy=no-user-gesture-required", "--mute-audio",
            "--hide-scrollbars", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            arguments,
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(to_browser[1])
            os.close(from_browser[0])
