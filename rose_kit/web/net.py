"""A safe HTTP client (limits on time, size and redirects; no private addresses), and image decoding."""

import gzip
import io
import ipaddress
import socket
import sqlite3
import time
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import hishel
import httpx
import numpy as np
from hishel.httpx import CacheTransport
from numpy.typing import NDArray
from PIL import Image

from rose_kit import __version__
from rose_kit.data import read_image, warn_frames
from rose_kit.registry import errors_as

IMAGE_FORMATS, MAX_PIXELS = ("JPEG", "PNG", "GIF", "WEBP", "BMP"), 40_000_000
BUSY = (500, 502, 503, 504)  # HTTP statuses after which a request is repeated
_deadline: ContextVar[float] = ContextVar("deadline")  # of the request of this thread, in monotonic seconds


class WebError(OSError):
    """Something could not be fetched, or is not what it should be; the message names it."""


@dataclass
class Client:
    """Fetches over HTTP, and caches responses in memory for as long as their headers allow (RFC 9111).

    It uses no proxies, because the addresses that they connect to cannot be checked.
    """

    seconds: float = 20.0  # for a request with its redirects, waits and body
    max_bytes: int = 8 * 2**20  # of a body, compressed and decompressed
    hops: int = 6  # maximum number of redirects and repetitions together
    allow_private: bool | Collection[str] = False  # True: all private addresses; or "host", "host:port"
    contact: str = "no contact given"  # your address or web page; Wikimedia asks for one

    def __post_init__(self) -> None:
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        storage = hishel.SqliteStorage(connection=database)
        transport = CacheTransport(_Network(self.allow_private), storage, hishel.CacheOptions(shared=False))
        agent = f"rose_kit/{__version__} (retrieval-augmented segmentation; {self.contact})"
        headers = {"User-Agent": agent, "Accept-Encoding": "gzip"}
        self._http = httpx.Client(transport=transport, headers=headers, timeout=10)

    def get(self, url: str, **params: Any) -> bytes:
        """The body of the response; raises WebError."""
        with errors_as(WebError, url):
            _deadline.set(time.monotonic() + self.seconds)
            place = httpx.URL(url).copy_merge_params(params) if params else url  # it may have a query itself
            for attempt in range(1, self.hops + 2):
                with self._http.stream("GET", place) as response:
                    body = self._body(response)
                if response.is_success:
                    return body
                if response.next_request:
                    place = response.next_request.url
                elif response.status_code in BUSY:
                    time.sleep(0.2 * attempt)
                else:
                    break
            raise ValueError(f"HTTP {response.status_code} {response.reason_phrase} at request {attempt}")

    def _body(self, response: httpx.Response) -> bytes:
        """The decompressed body; reading stops as soon as it is too large."""
        body, declared = bytearray(), int(response.headers.get("content-length", 0))
        for piece in response.iter_raw():
            body += piece
            if max(len(body), declared) > self.max_bytes:
                raise ValueError(f"more than {self.max_bytes} bytes")
        if response.headers.get("content-encoding") == "gzip":  # httpx would decompress to any size
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(self.max_bytes + 1)
            if len(body) > self.max_bytes:
                raise ValueError(f"more than {self.max_bytes} bytes once decompressed")
        return bytes(body)


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image of the usual formats of the web by `read_image`; raises WebError."""
    with errors_as(WebError, name), Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        warn_frames(image, name)
        return read_image(image)


def _remaining(timeout: float | None = None) -> float:
    """Seconds to the deadline, or the time-out if that is sooner."""
    if (seconds := _deadline.get() - time.monotonic()) > 0:
        return min(seconds, timeout or seconds)
    raise TimeoutError("no complete answer in the time allowed")


def _with_deadline(stream: Any) -> Any:
    """A connection of httpcore that cannot be read after the deadline, however slowly bytes arrive."""
    read, start_tls = stream.read, stream.start_tls
    stream.read = lambda size, timeout=None: read(size, _remaining(timeout))
    stream.start_tls = lambda **options: _with_deadline(start_tls(**options | {"timeout": _remaining()}))
    return stream


class _Network(httpx.HTTPTransport):
    """The transport below the cache: it connects to the very address it has checked.

    A second look-up of the name might give another address.
    """

    def __init__(self, allow_private: bool | Collection[str]) -> None:
        super().__init__()
        self.allow_private = allow_private
        self.inner, self._pool._network_backend = self._pool._network_backend, self

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        """Called by httpcore; refuses a name if one of its addresses is not public."""
        addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        allowed = self.allow_private is True or {host, f"{host}:{port}"} & set(self.allow_private or ())
        for address in addresses:
            if not (allowed or _is_public(address)):
                raise PermissionError(f"{host} is at {address}, which is not a public address")
        return _with_deadline(self.inner.connect_tcp(addresses[0], port, _remaining(timeout), **options))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    embedded = getattr(ip, "sixtofour", None) or getattr(ip, "is_site_local", False)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or embedded)  # reserved: ::ffff:127.0.0.1
