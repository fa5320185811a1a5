"""Language models: spoken to over real HTTP on the loopback address; every failure is one clear OSError."""

import json
import sys
from threading import Event

import pytest

from rose_kit.web.llm import LanguageModel
from rose_kit.web.websense import WebSense
from tests.webserver import serving

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serving() as server:
        yield server


def completion(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(answer).encode()


def answering(server, body, status=200):
    """The address of an endpoint that answers every prompt alike."""
    server.routes["/v1/chat/completions"] = (status, {"Content-Type": "application/json"}, body)
    return f"{server.url}/v1"


def test_a_prompt_goes_out_and_the_answer_comes_back(server, monkeypatch):
    url = answering(server, completion("YES, look."))
    assert LanguageModel("small", url, "secret")("Is it new?") == "YES, look."
    body = json.loads(server.bodies[0])
    assert server.headers[0]["authorization"] == "Bearer secret"
    assert body["model"] == "small" and body["temperature"] == 0 and body["max_tokens"] > 0
    assert body["messages"] == [{"role": "user", "content": "Is it new?"}]
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "from outside")
    answering(server, completion(None))
    assert LanguageModel("m")("x") == "" and server.headers[1]["authorization"] == "Bearer from outside"


def test_a_missing_endpoint_or_extra_is_named(monkeypatch):
    with pytest.raises(ValueError, match="'gpt'.*OPENAI_BASE_URL.*OPENAI_API_KEY"):
        LanguageModel("gpt")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"rose_kit\[llm\]"):
        LanguageModel("gpt", "http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"{}"), (401, b'{"error": {}}'), (200, b"not json"), (200, b'{"choices": []}'), (200, b"{}")],
)
def test_what_goes_wrong_there_is_one_error_that_names_model_and_endpoint(server, status, body):
    model = LanguageModel("m", answering(server, body, status), retries=0)
    with pytest.raises(OSError, match=f"'m' at {server.url}"):
        model("x")
    decision = WebSense(model)("Segment the champion.", None)
    assert decision.retrieve and decision.by == "default" and len(server.asked) == 2


def test_an_endpoint_that_is_too_slow_or_not_there_is_given_up(server):
    url, wait = answering(server, b""), Event()
    server.routes["/v1/chat/completions"] = lambda handler: wait.wait(5) and None
    for address, seconds in ((url, 0.2), ("http://127.0.0.1:9/v1", 2)):
        with pytest.raises(OSError, match=address):
            LanguageModel("m", address, seconds=seconds, retries=0)("x")
    wait.set()
