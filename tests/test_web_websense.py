"""WebSense: time about what is asked for, and not elsewhere; what cannot be told is looked up."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_scripts.news.bank import bank, fill
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import words_of
from rose_kit.web.websense import WebSense

KNOWN = words_of(load_encoder("bundled"))
DAY = date(2026, 3, 1)
GATE = WebSense(known=KNOWN)
NEEDED = [  # phrasings of no phrase bank
    "Segment the boat that won the cup.",
    "Which dog is the current champion? Segment it.",
    "segment the aerix hawk",
    "Segment this year's mayor.",
    "Segment the Aerix lamp",
    "What has Aerix just launched?",
    "I'd like to have the holder of the record segmented",
]
NEEDLESS = [
    "Segment the cat sitting on the latest issue of the magazine.",
    "With the new moon up, find the boat.",
    "In yesterday's picture, where's the dog?",
    "the buses",
    "Segment the kite that looks like it won the cup.",
    "segment the red car parked near the bank that was opened in 2021",
    "On the day of the big match, shade the bicycle furthest to the left.",
]


@pytest.mark.parametrize("question", NEEDED + NEEDLESS)
def test_what_depends_on_the_day_or_on_news_is_looked_up_and_nothing_else(question):
    assert GATE(question, DAY).retrieve == (question in NEEDED)


def test_on_the_development_phrases_the_gate_keeps_its_promise():
    words = bank("dev")
    slots = {"thing": "dog", "other": "bus", "stuff": "sand", "maker": "Aerix", "product": "Aerix Hawk 5"}
    needed = [
        fill(text, title=title, event=event, day=DAY)
        for title, event, _ in words.roles
        for text, _ in words.role_questions
    ]
    needed += [fill(text, day=DAY, **slots) for text, _ in words.product_questions + words.newest_questions]
    needless = [fill(text, day=DAY, **slots) for _, text, _ in words.static_questions]
    assert np.mean([GATE(question, DAY).retrieve for question in needed]) >= 0.95
    assert np.mean([GATE(question, DAY).retrieve for question in needless]) <= 0.1


def test_the_model_is_asked_only_about_what_rules_leave_open():
    prompts = []

    def llm(prompt):
        prompts.append(prompt)
        return "NO, that is a mountain."

    gate = WebSense(llm, KNOWN)
    assert gate("Segment the current champion.", DAY).by == "rule" == gate("Segment the dog.", DAY).by
    assert not prompts
    decision = gate("Segment the matterhorn.", DAY)
    assert (decision.retrieve, decision.by) == (False, "model") and "mountain" in decision.reason
    assert "2026-03-01" in prompts[0] and "matterhorn" in prompts[0]


def broken(prompt):
    raise OSError("no route to host")


@pytest.mark.parametrize("answer", ["", "Perhaps.", "I cannot say yes or no", "notably, it is a dog", None])
def test_without_a_clear_answer_the_question_is_let_through(answer):
    llm = broken if answer is None else lambda prompt: answer
    for gate in (WebSense(llm, KNOWN), WebSense()):
        decision = gate("Segment the champion.", DAY)
        assert decision.retrieve and decision.by == "default" and decision.reason


@given(st.text(max_size=200))
def test_any_text_is_decided_with_a_reason(text):
    decision = GATE(text, DAY)
    assert isinstance(decision.retrieve, bool) and decision.reason
