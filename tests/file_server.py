"""A real HTTP server on this machine that serves files well or badly, as a test asks it to."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class Site:
    """What is served and how. `cuts`: per answer, after how many bytes of it the connection breaks (first come first
    served); `statuses`: per request, an error to answer; `served`: (path, Range header) of every request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    length: bool = True
    content_type: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    pause_seconds: float = 0.0
    served: list[tuple[str, str | None]] = field(default_factory=list)


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.served.append((self.path, wanted))
            if site.statuses:
                return self.send_error(site.statuses.pop(0))
            body = site.files.get(self.path)
            if body is None:
                return self.send_error(404)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Type", site.content_type)
            if site.length:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self._send(body[start:], site.cuts.pop(0) if site.cuts else None)
            return None

        def _send(self, body: bytes, cut: int | None) -> None:
            for low in range(0, len(body[:cut]), 1 << 16):
                self.wfile.write(body[:cut][low : low + (1 << 16)])
                time.sleep(site.pause_seconds)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
