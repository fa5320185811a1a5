"""The miniature web over real HTTP, on this machine only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qsl, unquote, urlsplit

from data_scripts.news.api import Api
from data_scripts.news.archive import Archive, canonical
from data_scripts.news.photos import SIZE
from data_scripts.news.world import NewsWorld

_THUMB = re.compile(r"thumb/[^/]+/(?P<width>\d{1,4})px-(?P<name>[^/]+)")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET: `/w/api.php`, `/wiki/TITLE`, `/images/NAME`."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together: else every answer waits 40 ms for an acknowledgement
    api: Api
    lock: Lock

    def do_GET(self) -> None:
        """One request."""
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        with self.lock:  # pictures and the index are made when first asked for
            status, kind, body = self._answer(path, parts.query)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, query: str) -> tuple[int, str, bytes]:
        if path == "/w/api.php":
            found = self.api.answer(dict(parse_qsl(query)))
            return 200, "application/json; charset=utf-8", json.dumps(found, ensure_ascii=False).encode()
        head, _, name = path[1:].partition("/")
        archive = self.api.archive
        if head == "images":
            thumb = _THUMB.fullmatch(name)
            title = f"File:{canonical(thumb['name'] if thumb else name)}"
            width = int(thumb["width"]) if thumb else SIZE
            if title in archive.files and 0 < width <= SIZE:
                return 200, "image/png", archive.picture(title, width)
        elif head == "wiki" and (title := canonical(name)) in archive.pages:
            return _html(title, archive.pages[title].revisions[-1].html)
        elif head == "wiki" and title in archive.files:
            return _html(title, f"<p>{escape(archive.files[title].caption)}</p>")
        return 404, "text/plain; charset=utf-8", b"no such page\n"

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def _html(title: str, body: str) -> tuple[int, str, bytes]:
    page = f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title></head>"
    page += f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    return 200, "text/html; charset=utf-8", page.encode()


@contextmanager
def serve(world: NewsWorld, port: int = 0) -> Iterator[str]:
    """Serve a world on the loopback address while the block runs.

    Args:
        world: what to serve.
        port: 0 takes any free one.

    Yields:
        Its address, "http://127.0.0.1:PORT"; `/w/api.php` below it is the API for pages and pictures alike.
    """
    handler = type("Handler", (_Handler,), {"lock": Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    base = f"http://127.0.0.1:{server.server_address[1]}"
    handler.api = Api(Archive(world), base)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield base
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
