"""Fetching over real HTTP from a server that is slow, busy, excessive, broken or up to no good."""

import gzip
import io
import itertools
import shutil
import socket
import ssl
import subprocess
import time

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rose_kit.web.net import Client, WebError, decode_image
from tests.webserver import image_bytes, serving

CERTIFICATES = httpx.create_ssl_context()
SMALL = 100_000  # bytes; the tests' limit of size
BOMB = gzip.compress(bytes(20_000_000))


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """All of it is plain HTTP: certificates need not be loaded for every client."""
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", lambda **_: CERTIFICATES)


@pytest.fixture
def client(server):
    return Client(allow_private=[server.host], max_bytes=SMALL)


@pytest.fixture
def naps(monkeypatch):
    """How long was to be slept; nobody sleeps."""
    naps = []
    monkeypatch.setattr("rose_kit.web.net.time.sleep", naps.append)
    return naps


def refused(client, url, cause=":"):
    """Fetching fails in one line that repeats the address, and names the cause."""
    with pytest.raises(WebError, match=cause) as caught:
        client.get(url)
    assert str(caught.value).startswith(" ".join(f"{url}:".split())) and "\n" not in str(caught.value)


def test_a_body_arrives_and_the_agent_names_project_and_contact(server):
    server.routes["/a"] = lambda handler: (200, {}, f"{sorted(handler.query.items())}".encode())
    client = Client(allow_private=True, contact="me@example.org")
    assert client.get(f"{server.url}/a?x=1", y="p|q", z=2) == b"[('x', '1'), ('y', 'p|q'), ('z', '2')]"
    agent = server.headers[0]["user-agent"]
    assert agent.startswith("rose_kit/") and "me@example.org" in agent
    client.get(f"{server.url}/a?12345&signed=a%2Fb+c")
    assert server.asked[1] == "/a?12345&signed=a%2Fb+c"  # untouched


# --- time and patience ------------------------------------------------------------------------------------


def forever(text):
    return itertools.chain([text], itertools.repeat(b"x"))


@pytest.mark.parametrize(
    "pieces",
    [
        itertools.repeat(b""),
        forever(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        forever(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
    ],
    ids=["silent", "headers drip", "body drips"],
)
def test_a_slow_server_is_left_in_time(server, pieces):
    server.routes["/"] = server.drip(pieces)
    client, start = Client(allow_private=True, seconds=0.3), time.monotonic()
    refused(client, f"{server.url}/", "time")
    assert time.monotonic() - start < 3


def busy(times, status, headers):
    """Refuses so often, then answers."""
    left = [times]

    def route(handler):
        left[0] -= 1
        return (status, headers, b"busy") if left[0] >= 0 else (200, {}, b"here you are")

    return route


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(server, client, naps, status):
    server.routes["/"] = busy(3, status, {})
    assert client.get(server.url) == b"here you are"
    assert len(naps) == 3 and 0 < naps[0] < naps[1] < naps[2] < client.seconds


def test_a_server_says_how_long_to_wait_unless_it_is_too_long(server, client, naps):
    server.routes = {"/7": busy(1, 429, {"Retry-After": "7"}), "/3600": busy(1, 429, {"Retry-After": "3600"})}
    assert client.get(f"{server.url}/7") == b"here you are"
    refused(client, f"{server.url}/3600", "HTTP 429")
    assert naps == [7]


def test_a_server_that_stays_broken_is_given_up(server, client, naps):
    server.routes["/"] = (500, {}, b"out of order")
    refused(client, f"{server.url}/", "HTTP 500")
    assert 1 < len(server.asked) <= client.hops + 1
    refused(client, f"{server.url}/absent", "HTTP 404")
    assert server.count()["/absent"] == 1  # nothing is gained by asking again


# --- size and shape ---------------------------------------------------------------------------------------


def endless(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


@pytest.mark.parametrize(
    "route",
    [
        (200, {"Content-Length": "9999999999"}, b"x"),
        (200, {}, b"x" * (SMALL + 1)),
        endless,
        (200, {"Content-Encoding": "gzip"}, BOMB),
        (404, {}, b"x" * (SMALL + 1)),
        (302, {"Location": "/fine"}, b"x" * (SMALL + 1)),
    ],
    ids=["declared", "sent", "endless", "bomb", "an error's", "a redirect's"],
)
def test_too_much_is_refused(server, client, route):
    server.routes = {"/": route, "/fine": (200, {}, b"")}
    refused(client, f"{server.url}/", f"more than {SMALL} bytes")


def test_just_enough_is_not_too_much_and_a_bomb_in_a_bomb_stays_packed(server, client):
    packed, twice = gzip.compress(b"y" * SMALL), gzip.compress(BOMB)
    server.routes = {
        "/": (200, {}, b"x" * SMALL),
        "/packed": (200, {"Content-Encoding": "gzip"}, packed),
        "/twice": (200, {"Content-Encoding": "gzip, gzip"}, twice),
    }
    assert client.get(f"{server.url}/") == b"x" * SMALL
    assert client.get(f"{server.url}/packed") == b"y" * SMALL == client.get(f"{server.url}/packed")
    assert client.get(f"{server.url}/twice") == twice


@pytest.mark.parametrize(
    "route",
    [
        (200, {"Content-Length": "500"}, b"too little"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(b"hello" * 100)[:-9]),
        (200, {"Content-Encoding": "gzip"}, b"not packed at all"),
        (200, {"Content-Length": "many"}, b"hello"),
        lambda handler: handler.wfile.write(b"\x00\x01 what is HTTP?\r\n\r\n") and None,
        lambda handler: None,
    ],
    ids=["cut off", "gzip cut off", "no gzip", "length in words", "not HTTP", "hangs up"],
)
def test_a_broken_answer_is_refused_and_not_cached(server, client, route):
    server.routes["/"] = route
    refused(client, f"{server.url}/")
    server.routes["/"] = (200, {}, b"all of it")
    assert client.get(f"{server.url}/") == b"all of it"


# --- where to ---------------------------------------------------------------------------------------------


def test_redirects_are_followed_a_few_times(server, client):
    server.routes = {f"/{i}": (302, {"Location": f"/{i + 1}"}, b"") for i in range(5)}
    server.routes |= {"/5": (200, {}, b"arrived"), "/loop": (307, {"Location": "/loop"}, b"")}
    assert client.get(f"{server.url}/0") == b"arrived"
    refused(client, f"{server.url}/loop", "HTTP 30")
    assert server.count()["/loop"] <= client.hops + 1


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://a.example/", "data:text/plain,hi", "javascript:1", "", "http://[::1"],
)
def test_only_http_is_spoken(server, client, place):
    refused(client, place)
    server.routes["/"] = (302, {"Location": place}, b"")
    refused(client, f"{server.url}/")


PRIVATE = "127.0.0.1 localhost 0.0.0.0 0 127.1 2130706433 0x7f000001 0177.0.0.1 me@127.0.0.1 [::1] [::] "
PRIVATE += "[::ffff:127.0.0.1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 [fe80::1] "
PRIVATE += "[fec0::1] [fd00::1] 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 192.0.2.1 224.0.0.1 [ff02::1] "
PRIVATE += "240.0.0.1 255.255.255.255"


def test_private_addresses_are_refused_however_spelt_and_wherever_they_come_from(server, client):
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
        raise OSError("the way ends here")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("httpcore._backends.sync.SyncBackend.connect_tcp", connect)
    client = Client()
    refused(client, "http://rebind.example/", "the way ends here")
    refused(client, "http://rebind.example/", "rebind.example is at 127.0.0.1")
    refused(client, "https://mixed.example/", "10.0.0.7")
    assert connected == ["93.184.215.14"]


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", server.url)
    refused(Client(), "http://10.0.0.1/", "not a public address")
    assert server.asked == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_is_held_against_the_name_not_the_address(server, tmp_path, monkeypatch):
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


# --- the cache --------------------------------------------------------------------------------------------


def counting(headers):
    """Answers with the number of the request, or 304 if its tag is known."""

    def route(handler):
        if "If-None-Match" in handler.headers:
            return 304, headers, b""
        return 200, headers, f"{len(handler.server.asked)}".encode()

    return route


def test_fresh_answers_are_kept_and_stale_ones_checked(server, client, monkeypatch):
    ahead, now = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    lasting = {"Cache-Control": "private, must-revalidate, max-age=60"}  # as MediaWiki says
    server.routes = {"/": counting(lasting), "/tagged": counting({"ETag": '"one"'} | lasting)}
    assert [client.get(server.url) for _ in range(3)] == [b"1"] * 3 and len(server.asked) == 1
    assert client.get(f"{server.url}/tagged") == b"2"
    ahead[0] = 65
    assert client.get(server.url) == b"3"
    assert client.get(f"{server.url}/tagged") == b"2" and server.headers[-1]["if-none-match"] == '"one"'


# --- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "mode", "colour"),
    [
        ("PNG", "RGB", (200, 60, 40)),
        ("JPEG", "CMYK", (255, 0, 0)),
        ("PNG", "L", (90, 90, 90)),
        ("PNG", "1", (255, 255, 255)),
        ("WEBP", "RGBA", (255, 255, 255)),
        ("BMP", "RGB", (200, 60, 40)),
    ],
)
def test_images_of_all_kinds_become_rgb_and_cut_off_ones_are_refused(form, mode, colour):
    data = image_bytes(form, mode)
    image = decode_image(data, "p")
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= 3  # JPEG rounds
    with pytest.raises(WebError, match="http://a.example/p: "):
        decode_image(data[: len(data) // 2], "http://a.example/p")


def test_an_image_stands_upright_and_of_an_animation_the_first_frame_is_taken():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(image_bytes("JPEG", exif=exif), "p").shape == (40, 30, 3)
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    red.save(file, "GIF", save_all=True, append_images=[blue])
    assert (decode_image(file.getvalue(), "p") == (255, 0, 0)).all()


def test_what_is_no_image_or_far_too_large_is_refused():
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for data in (image_bytes("PNG", "1", (8000, 6000)), b"", b"<html>", svg, image_bytes("TIFF")):
        with pytest.raises(WebError, match="^p: "):
            decode_image(data, "p")


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]), st.integers(0, 10**6), st.binary(max_size=9))
def test_an_image_with_bytes_changed_is_read_or_refused(form, place, noise):
    data = bytearray(image_bytes(form))
    place %= len(data)
    data[place : place + len(noise)] = noise
    try:
        image = decode_image(bytes(data), "p")
    except WebError:
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
