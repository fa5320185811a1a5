"""Language models over real HTTP; every failure is one OSError that names model and address."""

import json

import pytest

from rose_kit.web.llm import language_model
from rose_kit.web.websense import WebSense

pytest.importorskip("openai")


def answering(server, body, status=200):
    """The address of an endpoint that answers every prompt alike."""
    server.routes["/v1/chat/completions"] = (status, {"Content-Type": "application/json"}, body)
    return f"{server.url}/v1"


def test_a_prompt_goes_out_and_the_answer_comes_back(server, monkeypatch):
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "YES, look."}}]}
    url = answering(server, json.dumps(answer).encode())
    assert language_model("small", base_url=url, api_key="secret")("Is it new?") == "YES, look."
    body = json.loads(server.bodies[0])
    assert server.headers[0]["authorization"] == "Bearer secret"
    assert body["model"] == "small" and body["temperature"] == 0
    assert body["messages"] == [{"role": "user", "content": "Is it new?"}]
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "from outside")
    assert language_model("m")("x") and server.headers[1]["authorization"] == "Bearer from outside"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"{}"), (401, b'{"error": {}}'), (200, b"not json"), (200, b'{"choices": []}'), (200, b"{}")],
)
def test_a_bad_answer_is_one_error_and_leaves_the_gate_open(server, status, body):
    model = language_model("m", base_url=answering(server, body, status), max_retries=0)
    with pytest.raises(OSError, match=f"'m' at {server.url}"):
        model("x")
    decision = WebSense(model)("Segment the champion.", None)
    assert decision.retrieve and decision.by == "default" and len(server.asked) == 2


def test_an_endpoint_that_is_too_slow_or_not_there_is_given_up(server):
    server.routes["/v1/chat/completions"] = lambda handler: server.over.wait(5) and None
    for url, seconds in ((f"{server.url}/v1", 0.2), ("http://127.0.0.1:9/v1", 2)):
        with pytest.raises(OSError, match=url):
            language_model("m", base_url=url, timeout=seconds, max_retries=0)("x")
