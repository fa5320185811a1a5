"""A server on the loopback address that misbehaves as each test likes, and images to serve."""

import io
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image

COLOURS = {"RGB": (200, 60, 40), "CMYK": (0, 255, 255, 0), "RGBA": (255, 0, 0, 0), "1": 1}


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the route of its path: (status, headers, body), or a function of the handler.

    A function may answer by itself and return None.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query))
        self.server.asked.append(self.path)
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        route = self.server.routes.get(parts.path, (404, {}, b"nothing here"))
        with suppress(OSError):  # the client has had enough, which is what many tests are about
            answer = route(self) if callable(route) else route
            if answer is None:
                self.close_connection = True
            else:
                self.answer(*answer)

    do_POST = do_GET

    def answer(self, status, headers, body):
        headers = {"Content-Length": str(len(body)), "Date": self.date_time_string()} | headers
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection |= headers["Content-Length"] != str(len(body))

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Its `routes`, and what it was `asked` for, with which `headers` and `bodies`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes, self.asked, self.headers, self.bodies = {}, [], [], []
        self.over = Event()  # set when the test ends, for routes that wait
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is what was wanted


@pytest.fixture
def server():
    """A server, while a test runs."""
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def image_bytes(form="PNG", mode="RGB", size=(40, 30), **options):
    """An encoded image of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, COLOURS[mode]).save(file, form, **options)
    return file.getvalue()
