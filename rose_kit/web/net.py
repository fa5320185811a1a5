"""A safe HTTP client: bounded time, size and hops, public addresses only, a cache; and images from bytes.

It knows nothing of what is fetched or why.
"""

import gzip
import io
import ipaddress
import socket
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import hishel
import httpx
import numpy as np
from hishel.httpx import CacheTransport
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rose_kit import __version__

FORMATS, MAX_PIXELS = ("JPEG", "PNG", "GIF", "WEBP", "BMP"), 40_000_000
BUSY = (429, 500, 502, 503, 504)
_deadline: ContextVar[float] = ContextVar("deadline")  # of what this thread is fetching


class WebError(OSError):
    """Something could not be fetched, or is not what it should be; the message names it."""


@contextmanager
def as_web_error(name: str, advice: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is a WebError that says `name`: hostile input fails in many ways."""
    try:
        yield
    except Exception as error:
        if isinstance(error, WebError) and not advice:
            raise
        raise WebError(" ".join(f"{name}: {str(error) or repr(error)}{advice}".split())) from error


@dataclass
class Client:
    """Fetches over HTTP, and keeps answers in memory for as long as they say (RFC 9111).

    It uses no proxies: what they connect to could not be checked.
    """

    seconds: float = 20.0  # for all of a request: hops, waits and body
    max_bytes: int = 8 * 2**20  # of a body, as sent and once unpacked
    hops: int = 6  # redirects, and repetitions where a server is busy, together
    allow_private: bool | Collection[str] = False  # True: all; else these, as "host" or "host:port"
    contact: str = "no contact given"  # an address or a page of yours; Wikimedia asks for one

    def __post_init__(self) -> None:
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        storage = hishel.SqliteStorage(connection=database)
        transport = CacheTransport(_Network(self.allow_private), storage, hishel.CacheOptions(shared=False))
        agent = f"rose_kit/{__version__} (retrieval-augmented segmentation; {self.contact})"
        headers = {"User-Agent": agent, "Accept-Encoding": "gzip"}
        self._http = httpx.Client(transport=transport, headers=headers, timeout=10)

    def get(self, url: str, **params: Any) -> bytes:
        """Fetch what is at an address; raises WebError."""
        with as_web_error(url):
            _deadline.set(time.monotonic() + self.seconds)
            target = httpx.URL(url).copy_merge_params(params) if params else url  # merging rewrites
            request = self._http.build_request("GET", target)
            for hop in range(1, self.hops + 2):
                if request.url.scheme not in ("http", "https"):
                    raise ValueError(f"only http and https are fetched, not {request.url.scheme!r}")
                with closing(self._http.send(request, stream=True)) as answer:
                    body = self._body(answer)
                if answer.is_success:
                    return body
                if answer.next_request:
                    request = answer.next_request
                elif not _wait(answer, hop):
                    break
            raise ValueError(f"HTTP {answer.status_code} {answer.reason_phrase} at request {hop}")

    def _body(self, answer: httpx.Response) -> bytes:
        """The body, which is given up as soon as it is too large."""
        body, declared = bytearray(), int(answer.headers.get("content-length", 0))
        for piece in answer.iter_raw():
            body += piece
            if max(len(body), declared) > self.max_bytes:
                raise ValueError(f"more than {self.max_bytes} bytes")
        if answer.headers.get("content-encoding") == "gzip":  # httpx would unpack a piece to any size
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise ValueError(f"more than {self.max_bytes} bytes once unpacked")
        return bytes(body)


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image into (H, W, 3) uint8: its first frame, upright, on white; raises WebError."""
    with as_web_error(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        rgba = ImageOps.exif_transpose(image).convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def _wait(answer: httpx.Response, attempt: int) -> bool:
    """Wait for as long as a busy server asks; False if it is not busy, or there is no time left for that."""
    after = answer.headers.get("retry-after", "")
    pause = float(after) if after.isdigit() else 0.2 * attempt
    if answer.status_code not in BUSY or time.monotonic() + pause > _deadline.get():
        return False
    time.sleep(pause)
    return True


def _left(timeout: float | None = None) -> float:
    """Seconds to the deadline, or the time-out if that is sooner."""
    if (left := _deadline.get() - time.monotonic()) > 0:
        return min(left, timeout or left)
    raise TimeoutError("no complete answer in the time allowed")


def _in_time(stream: Any) -> Any:
    """A connection of httpcore whose reads end at the deadline, however slowly bytes drip in."""
    read, start_tls = stream.read, stream.start_tls
    stream.read = lambda size, timeout=None: read(size, _left(timeout))
    stream.start_tls = lambda **options: _in_time(start_tls(**options | {"timeout": _left()}))
    return stream


class _Network(httpx.HTTPTransport):
    """Beneath the cache: connects to the very address it has checked, whatever the name says next."""

    def __init__(self, allow_private: bool | Collection[str]) -> None:
        super().__init__()
        self.allow_private = allow_private
        self.inner, self._pool._network_backend = self._pool._network_backend, self

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        """Called by httpcore; a name with one bad address is refused."""
        addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        allowed = self.allow_private is True or {host, f"{host}:{port}"} & set(self.allow_private or ())
        for address in addresses:
            if not (allowed or _is_public(address)):
                raise PermissionError(f"{host} is at {address}, which is not a public address")
        return _in_time(self.inner.connect_tcp(addresses[0], port, _left(timeout), **options))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    embedded = getattr(ip, "sixtofour", None) or getattr(ip, "is_site_local", False)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or embedded)  # reserved: ::ffff:127.0.0.1
