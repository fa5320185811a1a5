"""Language models: spoken to over real HTTP on the loopback address; every failure is one clear OSError."""

import json
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from rose_kit.web.llm import NO_MODEL, LanguageModel
from rose_kit.web.websense import WebSense

pytest.importorskip("openai")


def completion(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@contextmanager
def endpoint(status=200, body=None, wait=None):
    """A server that answers every POST alike; yields its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            read = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"], json.loads(read)))
            if wait:
                wait.wait(5)
            answer = (
                body if isinstance(body, bytes) else json.dumps(body or completion("YES, look.")).encode()
            )
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_prompt_goes_out_and_the_answer_comes_back():
    with endpoint() as (url, asked):
        assert LanguageModel("small", url, "secret")("Is it new?") == "YES, look."
    (path, key, body), *more = asked
    assert path == "/v1/chat/completions" and key == "Bearer secret" and not more
    assert body["model"] == "small" and body["temperature"] == 0 and body["max_tokens"] > 0
    assert body["messages"] == [{"role": "user", "content": "Is it new?"}]


def test_the_endpoint_and_the_key_come_from_the_surroundings(monkeypatch):
    with endpoint() as (url, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "from outside")
        LanguageModel("m")("x")
    assert asked[0][1] == "Bearer from outside"


def test_without_an_endpoint_or_a_key_it_says_which_variables_would_do():
    with pytest.raises(ValueError, match="'gpt'.*OPENAI_BASE_URL.*OPENAI_API_KEY"):
        LanguageModel("gpt")


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"rose_kit\[llm\]"):
        LanguageModel("gpt", "http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (401, b'{"error": {"message": "no"}}'),
        (200, b"not json"),
        (200, b'{"choices": []}'),
        (200, b"{}"),
    ],
)
def test_what_goes_wrong_there_is_one_error_that_names_model_and_endpoint(status, body):
    with endpoint(status, body) as (url, asked):
        with pytest.raises(OSError, match=f"'m' at {url}"):
            LanguageModel("m", url, retries=0)("x")
        decision = WebSense(LanguageModel("m", url, retries=0))("Segment the champion.", None)
    assert decision.retrieve and decision.by == "default" and len(asked) == 2


def test_an_endpoint_that_is_too_slow_or_not_there_is_given_up():
    wait = Event()
    with endpoint(wait=wait) as (url, _):
        with pytest.raises(OSError, match="did not answer.*[Tt]ime"):
            LanguageModel("m", url, seconds=0.2, retries=0)("x")
        wait.set()
    with pytest.raises(OSError, match="did not answer"):
        LanguageModel("m", url, seconds=2, retries=0)("x")


def test_an_answer_without_text_is_empty():
    with endpoint(body=completion(None)) as (url, _):
        assert LanguageModel("m", url)("x") == ""


def test_the_default_says_that_there_is_no_model():
    assert "no language model" in NO_MODEL and "rules" in NO_MODEL
