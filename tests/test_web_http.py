"""Fetching over real HTTP from a server that is slow, busy, excessive, broken or up to no good."""

import email.utils
import gzip
import io
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rose_kit.web.net import Client, WebError, picture
from tests.webserver import picture_bytes, serving

CERTIFICATES = httpx.create_ssl_context()
SMALL = 100_000  # bytes; the tests' limit of size


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


@pytest.fixture(scope="module")
def strict():
    return Client()


@pytest.fixture
def naps(monkeypatch):
    """How long was to be slept; nobody sleeps."""
    naps = []
    monkeypatch.setattr("rose_kit.web.net.time.sleep", naps.append)
    return naps


@pytest.fixture
def later(monkeypatch):
    """Moves the clock of the cache, which is the wall's, ahead by seconds."""
    ahead, now = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    return lambda seconds: ahead.__setitem__(0, ahead[0] + seconds)


def refused(client, url, said=None):
    """Fetching fails in one line that repeats the address."""
    with pytest.raises(WebError, match=said) as caught:
        client.get(url)
    assert str(caught.value).startswith(" ".join(f"{url}:".split())) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_body_arrives_and_the_agent_names_the_project(server, client):
    server.routes["/a"] = lambda handler: (200, {}, f"{sorted(handler.query.items())}".encode())
    assert client.get(f"{server.url}/a?x=1", y="p|q", z=2) == b"[('x', '1'), ('y', 'p|q'), ('z', '2')]"
    assert server.headers[0]["user-agent"].startswith("rose_kit/")
    client.get(f"{server.url}/a?12345&signed=a%2Fb+c")
    assert server.asked[1] == "/a?12345&signed=a%2Fb+c"  # untouched
    reachable = Client(allow_private=True, contact="me@example.org")
    reachable.get(f"{server.url}/a")
    assert "me@example.org" in server.headers[2]["user-agent"]


@pytest.mark.parametrize(
    "url", ["", "http://", "nothing", "http://[::1", "http://a\n.example/", "http://a b/"]
)
def test_what_is_no_address_is_refused(client, url):
    refused(client, url)


# --- time -----------------------------------------------------------------------------------------


def forever(text):
    return itertools.chain([text], itertools.repeat(b"x"))


@pytest.mark.parametrize(
    "pieces",
    [
        itertools.repeat(b""),
        forever(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        forever(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
        forever(b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=["silent", "headers drip", "body drips", "body without length drips"],
)
def test_a_slow_server_is_left_in_time(server, pieces):
    server.routes["/"] = server.drip(pieces)
    refused(Client(allow_private=True, seconds=0.3), f"{server.url}/", "time")


def test_redirects_and_body_share_one_deadline(server):
    def hop(handler):
        server.over.wait(0.1)
        return 302, {"Location": f"/{len(server.asked)}"}, b""

    server.routes = {f"/{i}": hop for i in range(100)}
    refused(Client(allow_private=True, seconds=0.35, hops=90), f"{server.url}/0", "time")
    assert len(server.asked) < 10


# --- busy servers ---------------------------------------------------------------------------------


def busy(times, status, headers):
    """Refuses so often, then answers."""
    left = [times]

    def route(handler):
        left[0] -= 1
        return (status, headers, b"busy") if left[0] >= 0 else (200, {}, b"here you are")

    return route


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, client, naps, status):
    server.routes["/"] = busy(3, status, {})
    assert client.get(server.url) == b"here you are"
    assert len(naps) == 3 and 0 < naps[0] < naps[1] < naps[2] < client.seconds


def test_retry_after_is_kept_to(server, client, naps):
    server.routes = {
        "/seconds": busy(1, 429, {"Retry-After": "7"}),
        "/past": busy(1, 503, {"Retry-After": "0"}),
    }
    day = email.utils.formatdate(time.time() + 9, usegmt=True)
    server.routes["/date"] = busy(1, 503, {"Retry-After": day})
    server.routes["/nonsense"] = busy(1, 503, {"Retry-After": "soon"})
    for name in ("seconds", "past", "date", "nonsense"):
        assert client.get(f"{server.url}/{name}") == b"here you are"
    assert naps[:2] == [7, 0] and 7 < naps[2] <= 9 and 0 < naps[3] < 2


def test_a_wait_that_is_too_long_is_not_begun(server, client, naps):
    server.routes["/"] = busy(1, 429, {"Retry-After": "3600"})
    assert "HTTP 429" in refused(client, f"{server.url}/")
    assert len(server.asked) == 1 and sum(naps) == 0


def test_a_server_that_stays_broken_is_given_up(server, client, naps):
    server.routes["/"] = (500, {}, b"out of order")
    refused(client, f"{server.url}/", "HTTP 500")
    assert 1 < len(server.asked) <= client.hops + 1
    refused(client, f"{server.url}/absent", "HTTP 404")
    assert server.count()["/absent"] == 1  # nothing is gained by asking again


# --- size -----------------------------------------------------------------------------------------


def chunked(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


def endless(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 0x4000)


BOMB = gzip.compress(bytes(20_000_000))
TOO_MUCH = {
    "declared": (200, {"Content-Length": "9999999999"}, b"x"),
    "declared and sent": (200, {}, b"x" * (SMALL + 1)),
    "in chunks": chunked,
    "without length": endless,
    "bomb": (200, {"Content-Encoding": "gzip"}, BOMB),
    "an error's": (404, {}, b"x" * (SMALL + 1)),
    "a redirect's": (302, {"Location": "/fine"}, b"x" * (SMALL + 1)),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused(server, client, name):
    server.routes = {"/": TOO_MUCH[name], "/fine": (200, {}, b"")}
    assert len(BOMB) < SMALL
    refused(client, f"{server.url}/", f"more than {SMALL} bytes")


def test_just_enough_is_not_too_much(server, client):
    server.routes["/"] = (200, {}, b"x" * SMALL)
    server.routes["/packed"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"y" * SMALL))
    assert client.get(f"{server.url}/") == b"x" * SMALL
    assert client.get(f"{server.url}/packed") == b"y" * SMALL == client.get(f"{server.url}/packed")


def test_a_bomb_in_a_bomb_stays_packed(server, client):
    twice = gzip.compress(BOMB)
    server.routes["/"] = (200, {"Content-Encoding": "gzip, gzip"}, twice)
    assert client.get(f"{server.url}/") == twice


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
def test_a_broken_answer_is_refused(server, client, route):
    server.routes["/"] = route
    refused(client, f"{server.url}/")


# --- where to -------------------------------------------------------------------------------------


def test_redirects_are_followed_a_few_times(server, client):
    server.routes = {f"/{i}": (302, {"Location": f"/{i + 1}"}, b"") for i in range(5)}
    server.routes["/5"] = (200, {}, b"arrived")
    assert client.get(f"{server.url}/0") == b"arrived"


def test_a_redirect_loop_ends(server, client):
    server.routes = {"/a": (302, {"Location": "/b"}, b""), "/b": (307, {"Location": "/a"}, b"")}
    refused(client, f"{server.url}/a", "HTTP 30")
    assert len(server.asked) <= client.hops + 1


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://a.example/", "data:text/plain,hi", "javascript:1"]
)
def test_only_http_is_spoken(server, client, place):
    server.routes["/"] = (302, {"Location": place}, b"")
    refused(client, f"{server.url}/")
    refused(client, place, "http")


def test_a_redirect_to_a_private_address_is_refused(server, client):
    port = server.server_port
    server.routes["/"] = (302, {"Location": f"http://localhost:{port}/secret"}, b"")
    refused(client, f"{server.url}/", "localhost is at .*, which is not a public address")
    assert server.asked == ["/"]


PRIVATE = [
    "127.0.0.1",
    "localhost",
    "0.0.0.0",
    "0",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "someone@127.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "[ff02::1]",
    "240.0.0.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_however_spelt(server, strict, host):
    refused(
        strict, f"http://{host}:{server.server_port}/", "which is not a public address|Invalid IPv4 address"
    )
    assert server.asked == []


def resolver(monkeypatch, *answers):
    """Names are at these addresses: one answer for each time that somebody asks."""
    left, connected = iter(answers), []

    def look_up(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(left)]

    def connect(self, host, *args, **options):
        connected.append(host)
        raise OSError("the way ends here")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("httpcore._backends.sync.SyncBackend.connect_tcp", connect)
    return connected


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch, strict):
    connected = resolver(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])  # the second look-up would be rebound
    refused(strict, "http://rebind.example/", "the way ends here")
    assert connected == ["93.184.215.14"]
    refused(strict, "http://rebind.example/", "rebind.example is at 127.0.0.1, which is not")
    assert connected == ["93.184.215.14"]


def test_a_name_with_one_private_address_is_refused(monkeypatch, strict):
    connected = resolver(monkeypatch, ["93.184.215.14", "10.0.0.7"])
    refused(strict, "https://mixed.example/", "10.0.0.7")
    assert connected == []


def test_without_a_network_the_message_says_which_name_was_not_found(monkeypatch, strict):
    def fail(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    refused(strict, "https://en.wikipedia.org/w/api.php", "Temporary failure in name resolution")


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
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
    server.routes = {"/": (200, {}, b"ours"), "/slow": server.drip(forever(b"HTTP/1.1 200 OK\r\n\r\n"))}
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", lambda **_: trusting)
    client, base = Client(allow_private=True, seconds=2), f"https://localhost:{server.server_port}"
    assert client.get(f"{base}/") == b"ours"
    refused(Client(allow_private=True, seconds=0.3), f"{base}/slow", "time")
    refused(client, f"https://127.0.0.1:{server.server_port}/", "certificate verify failed")


# --- the cache ------------------------------------------------------------------------------------


def counting(headers):
    """Answers with the number of the request, or 304 if its tag is known."""

    def route(handler):
        if "If-None-Match" in handler.headers:
            return 304, headers, b""
        return 200, headers, f"{len(handler.server.asked)}".encode()

    return route


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "max-age=60"},
        {"Cache-Control": "private, must-revalidate, max-age=60"},
        {},
        {"Cache-Control": "public"},
    ],
    ids=["max-age", "as MediaWiki says", "says nothing", "says no time"],
)
def test_fresh_answers_are_kept_until_they_expire(server, later, headers):
    server.routes["/"] = counting(headers)
    client = Client(allow_private=True, ttl=60)
    assert [client.get(server.url) for _ in range(3)] == [b"1"] * 3
    later(55)
    assert client.get(server.url) == b"1" and len(server.asked) == 1
    later(10)
    assert client.get(server.url) == b"2"


def test_a_stale_answer_is_checked_not_fetched_anew(server, client, later):
    server.routes["/"] = counting({"ETag": '"one"', "Cache-Control": "max-age=60"})
    assert client.get(server.url) == b"1"
    later(100)
    assert client.get(server.url) == b"1" and server.headers[1]["if-none-match"] == '"one"'
    assert client.get(server.url) == b"1" and len(server.asked) == 2  # fresh again


def test_what_must_not_be_kept_is_not(server, client):
    expired = {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}
    server.routes = {"/no": counting({"Cache-Control": "no-store"}), "/old": counting(expired)}
    assert [client.get(f"{server.url}/no") for _ in range(2)] == [b"1", b"2"]
    assert [client.get(f"{server.url}/old") for _ in range(2)] == [b"3", b"4"]
    server.routes["/err"] = busy(1, 404, {})
    refused(client, f"{server.url}/err", "404")
    assert client.get(f"{server.url}/err") == b"here you are"


def test_the_cache_outlives_its_client_and_its_server(server, tmp_path):
    server.routes["/"] = counting({})
    first = Client(f"{tmp_path}/web.db", allow_private=True)
    assert first.get(server.url) == b"1"
    server.routes.clear()
    assert Client(f"{tmp_path}/web.db", allow_private=True).get(server.url) == b"1"


def test_a_cache_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "web.db").write_bytes(b"this is no database" * 100)
    for path in (f"{tmp_path}/web.db", f"{tmp_path}/nowhere/web.db", str(tmp_path)):
        with pytest.raises(WebError, match=f"the cache {path}: "):
            Client(path)
    assert (tmp_path / "web.db").read_bytes() == b"this is no database" * 100


def test_an_answer_that_was_cut_off_is_not_kept(server, client):
    server.routes["/"] = (200, {"Content-Length": "500"}, b"too little")
    refused(client, f"{server.url}/")
    server.routes["/"] = (200, {}, b"all of it")
    assert client.get(f"{server.url}/") == b"all of it"


def test_threads_share_a_client(server, client):
    server.routes["/"] = lambda handler: (200, {}, handler.query["n"].encode())
    found = {}
    work = [
        threading.Thread(target=lambda n=n: found.update({n: client.get(server.url, n=n % 5)}))
        for n in range(20)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert found == {n: str(n % 5).encode() for n in range(20)}


# --- what arrives ---------------------------------------------------------------------------------


def test_json_is_read_or_refused(server, client):
    server.routes["/fine"] = (200, {}, b'{"a": [1, "\xc3\xa9"]}')
    assert client.json(f"{server.url}/fine") == {"a": [1, "é"]}
    for i, body in enumerate([b"{", b"<html>", b"", b"\xff\xfe\x00", b"[" * 50_000]):
        server.routes[f"/{i}"] = (200, {}, body)
        with pytest.raises(WebError, match=f"{server.url}/{i}: "):
            client.json(f"{server.url}/{i}")


@pytest.mark.parametrize(
    ("form", "mode", "colour"),
    [
        ("PNG", "RGB", (200, 60, 40)),
        ("JPEG", "CMYK", (255, 0, 0)),
        ("PNG", "RGBA", (255, 255, 255)),
        ("PNG", "L", (90, 90, 90)),
        ("PNG", "1", (255, 255, 255)),
        ("WEBP", "RGBA", (255, 255, 255)),
        ("BMP", "RGB", (200, 60, 40)),
    ],
)
def test_pictures_of_all_kinds_become_rgb(form, mode, colour):
    image = picture(picture_bytes(form, mode), "p")
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= 3  # JPEG rounds


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert (picture(file.getvalue(), "p") == (255, 0, 0)).all()


def test_a_picture_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert picture(picture_bytes("JPEG", exif=exif), "p").shape == (40, 30, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_truncated_picture_is_refused(form):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form)
    for share in (0.1, 0.6):
        with pytest.raises(WebError, match="http://a.example/p: "):
            picture(file.getvalue()[: int(share * file.tell())], "http://a.example/p")


def test_what_is_no_picture_or_far_too_large_is_refused():
    large = picture_bytes("PNG", "1", (8000, 6000))
    assert len(large) < SMALL
    with pytest.raises(WebError, match="p: 8000 x 6000 pixels are too many"):
        picture(large, "p")
    for data in (b"", b"<html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", picture_bytes("TIFF")):
        with pytest.raises(WebError, match="cannot identify"):
            picture(data, "p")


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]), st.integers(0, 10**6), st.binary(max_size=9))
def test_a_picture_with_bytes_changed_is_read_or_refused(form, place, noise):
    data = bytearray(picture_bytes(form))
    place %= len(data)
    data[place : place + len(noise)] = noise
    try:
        image = picture(bytes(data), "p")
    except WebError:
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
