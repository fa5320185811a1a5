"""Fetching over real HTTP from a server that is slow, busy, excessive, broken or malicious."""

import gzip
import itertools
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from rose_kit.web.net import Client, WebError, decode_image
from tests.webserver import image_bytes

LIMIT = 100_000  # bytes
BOMB = gzip.compress(bytes(20_000_000))
GZIP = {"Content-Encoding": "gzip"}


@pytest.fixture
def client(server):
    return Client(allow_private=[server.host], max_bytes=LIMIT)


def refused(client, url, cause=":"):
    """Fetching fails in one line that begins with the address and names the cause."""
    with pytest.raises(WebError, match=cause) as caught:
        client.get(url)
    assert str(caught.value).startswith(" ".join(f"{url}:".split())) and "\n" not in str(caught.value)


SLOW = {
    "silent": (b"", b""),
    "slow headers": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "slow body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"x"),
}


@pytest.mark.parametrize(("start", "piece"), SLOW.values(), ids=SLOW)
def test_a_slow_server_is_left_in_time(server, start, piece):
    def drip(handler):
        for part in itertools.chain([start], itertools.repeat(piece)):
            handler.wfile.write(part)
            if server.over.wait(0.05):
                return

    server.routes["/"] = drip
    client, begin = Client(allow_private=True, seconds=0.3), time.monotonic()
    refused(client, f"{server.url}/", "time")
    assert time.monotonic() - begin < 3


def test_a_busy_server_is_asked_again_and_given_up_in_the_end(server, client, monkeypatch):
    pauses = []
    monkeypatch.setattr("rose_kit.web.net.time.sleep", pauses.append)
    answers = iter([(503, {}, b"busy"), (502, {}, b"busy"), (200, {}, b"here you are")])
    server.routes["/busy"] = lambda handler: next(answers)
    assert client.get(f"{server.url}/busy") == b"here you are"
    assert 0 < pauses[0] < pauses[1] < 1
    server.routes["/broken"] = (500, {}, b"")
    refused(client, f"{server.url}/broken", "HTTP 500")
    assert server.asked.count("/broken") == client.hops + 1
    refused(client, f"{server.url}/absent", "HTTP 404")
    assert server.asked.count("/absent") == 1


def endless(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


TOO_MUCH = f"more than {LIMIT} bytes"
BAD_ANSWERS = {
    "too large, declared": ((200, {"Content-Length": "9999999999"}, b"x"), TOO_MUCH),
    "too large, sent": ((200, {}, b"x" * (LIMIT + 1)), TOO_MUCH),
    "endless": (endless, TOO_MUCH),
    "gzip bomb": ((200, GZIP, BOMB), TOO_MUCH),
    "too large a redirect": ((302, {"Location": "/fine"}, b"x" * (LIMIT + 1)), TOO_MUCH),
    "cut off": ((200, {"Content-Length": "500"}, b"too little"), ":"),
    "gzip cut off": ((200, GZIP, gzip.compress(b"hello" * 100)[:-9]), ":"),
}


@pytest.mark.parametrize(("route", "cause"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_refused_and_not_cached(server, client, route, cause):
    server.routes = {"/": route, "/fine": (200, {}, b"")}
    refused(client, f"{server.url}/", cause)
    server.routes["/"] = (200, {}, b"all of it")
    assert client.get(f"{server.url}/") == b"all of it"


def test_an_answer_of_the_largest_size_is_read(server, client):
    packed = gzip.compress(b"y" * LIMIT)
    server.routes = {"/plain": (200, {}, b"x" * LIMIT), "/packed": (200, GZIP, packed)}
    assert client.get(f"{server.url}/plain") == b"x" * LIMIT
    assert client.get(f"{server.url}/packed") == b"y" * LIMIT == client.get(f"{server.url}/packed")


def test_redirects_are_followed_a_few_times(server, client):
    server.routes = {f"/{i}": (302, {"Location": f"/{i + 1}"}, b"") for i in range(5)}
    server.routes |= {"/5": (200, {}, b"arrived"), "/loop": (307, {"Location": "/loop"}, b"")}
    assert client.get(f"{server.url}/0") == b"arrived"
    refused(client, f"{server.url}/loop", "HTTP 307")
    assert server.asked.count("/loop") <= client.hops + 1


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.example/", "data:text/plain,hi", "javascript:1", "", "http://[::1"]
)
def test_only_http_is_fetched_directly_or_after_a_redirect(server, client, url):
    refused(client, url)
    server.routes["/"] = (302, {"Location": url}, b"")
    refused(client, f"{server.url}/")


PRIVATE = """127.0.0.1 localhost 0.0.0.0 0 127.1 2130706433 0x7f000001 0177.0.0.1 me@127.0.0.1 [::1] [::]
    [::ffff:127.0.0.1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 [fe80::1] [fec0::1]
    [fd00::1] 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 192.0.2.1 224.0.0.1 [ff02::1] 240.0.0.1
    255.255.255.255"""


def test_private_addresses_are_refused_in_every_notation_after_redirects_and_by_proxies(
    server, client, monkeypatch
):
    monkeypatch.setenv("ALL_PROXY", server.url)
    strict = Client()
    for host in PRIVATE.split():
        refused(strict, f"http://{host}:{server.server_port}/", "not a public address|Invalid IPv4 address")
    assert server.asked == []
    server.routes["/"] = (302, {"Location": f"http://localhost:{server.server_port}/secret"}, b"")
    refused(client, f"{server.url}/", "localhost is at .* not a public address")
    assert server.asked == ["/"]


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch):
    answers = iter([["93.184.215.14"], ["127.0.0.1"], ["93.184.215.14", "10.0.0.7"]])  # the second is rebound
    connected = []

    def look_up(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    def connect(self, host, *args, **options):
        connected.append(host)
        raise OSError("no further")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("httpcore._backends.sync.SyncBackend.connect_tcp", connect)
    client = Client()
    refused(client, "http://rebind.example/", "no further")
    refused(client, "http://rebind.example/", "rebind.example is at 127.0.0.1")
    refused(client, "https://mixed.example/", "10.0.0.7")
    assert connected == ["93.184.215.14"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_is_checked_against_the_name_not_the_address(server, tmp_path, monkeypatch):
    key, certificate = f"{tmp_path}/key.pem", f"{tmp_path}/certificate.pem"
    make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost"
    make += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.routes = {"/": (200, {}, b"ours")}
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", lambda **_: trusting)
    client = Client(allow_private=True, seconds=2)
    assert client.get(f"https://localhost:{server.server_port}/") == b"ours"
    refused(client, f"https://127.0.0.1:{server.server_port}/", "certificate verify failed")


def test_what_is_no_image_cut_off_or_far_too_large_is_refused():
    """What a right one looks like, test_data.py says of every door."""
    svg, large = b"<svg xmlns='http://www.w3.org/2000/svg'/>", image_bytes("PNG", "1", (8000, 6000))
    cut_off = [image_bytes(form)[:150] for form in ("PNG", "JPEG", "WEBP")]
    for data in (large, b"", b"<html>", svg, image_bytes("TIFF"), *[part[:-50] for part in cut_off]):
        with pytest.raises(WebError, match="^http://a.example/p: "):
            decode_image(data, "http://a.example/p")
