"""WebSense: time about what is asked for, and not elsewhere; what cannot be told is looked up."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_scripts.news.bank import bank, fill, pick
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import words_of
from rose_kit.web.language import target
from rose_kit.web.websense import WebSense

KNOWN = words_of(load_encoder("bundled"))

DAY = date(2026, 3, 1)
GATE = WebSense(known=KNOWN)
NEEDED = [  # phrasings of no phrase bank
    "Segment the boat that won the cup.",
    "Which dog is the current champion? Segment it.",
    "Who won the Harbour Regatta? Segment the boat.",
    "segment the aerix hawk",
    "Segment this year's mayor.",
    "Segment the Aerix lamp",
    "What has Aerix just launched?",
    "Segment the boat that holds the title of regatta champion",
    "I'd like to have the holder of the record segmented",
    "Segment the latest boat by Aerix.",
]
NEEDLESS = [
    "Segment the cat sitting on the latest issue of the magazine.",
    "With the new moon up, find the boat.",
    "In yesterday's picture, where's the dog?",
    "Give me the mask of the dog.",
    "Segment both dogs.",
    "the buses",
    "segment dog",
    "Segment the kite that looks like it won the cup.",
    "segment the red car parked near the bank that was opened in 2021",
    "Trace the umbrella the lady is holding",
    "Mark all sheep in the last light of the day",
    "On the day of the big match, shade the bicycle furthest to the left.",
]


@pytest.mark.parametrize("question", NEEDED)
def test_what_depends_on_the_day_or_on_news_is_looked_up(question):
    assert GATE(question, DAY).retrieve


@pytest.mark.parametrize("question", NEEDLESS)
def test_what_the_segmenter_knows_is_not_whatever_else_is_said_of_time(question):
    assert not GATE(question, DAY).retrieve


def test_on_the_development_phrases_the_gate_keeps_its_promise():
    words = bank("dev")
    rng = np.random.default_rng(0)
    slots = {
        "thing": "dog",
        "other": "bus",
        "stuff": "sand",
        "maker": "Aerix",
        "product": "Aerix Hawk 5",
        "day": DAY,
    }
    decided = {True: [], False: []}
    for title, event, _ in words.roles:
        for text, _ in words.role_questions:
            decided[True].append(GATE(fill(text, title=title, event=event, day=DAY), DAY))
    for text, _ in words.product_questions + words.newest_questions:
        decided[True].append(GATE(fill(text, **slots), DAY))
    for _, text, _ in words.static_questions:
        things = {"thing": pick(KNOWN, rng), "other": pick(KNOWN, rng)}
        decided[False].append(GATE(fill(text, **(slots | things)), DAY))
    assert np.mean([not d.retrieve for d in decided[True]]) <= 0.05
    assert np.mean([not d.retrieve for d in decided[False]]) >= 0.9
    assert all(d.by in ("rule", "default") and d.reason for d in decided[True] + decided[False])


def test_what_is_to_be_segmented():
    assert target("Please mask the red boat that won the race.") == ("red boat", " that won the race")
    assert target("Mark the pixels of the sheep behind the bus.")[0] == "sheep"
    assert target("Who is the champion right now? Mask it.")[0] == "champion"
    assert target("In the evening news photograph, outline the dog.")[0] == "dog"


def test_the_model_is_asked_only_about_what_rules_leave_open():
    asked = []

    def llm(prompt):
        asked.append(prompt)
        return "NO, that is a mountain."

    gate = WebSense(llm, KNOWN)
    assert gate("Segment the current champion.", DAY).by == "rule"
    assert gate("Segment the dog.", DAY).by == "rule" and not asked
    decision = gate("Segment the matterhorn.", DAY)
    assert (decision.retrieve, decision.by) == (False, "model") and "mountain" in decision.reason
    assert "2026-03-01" in asked[0] and "matterhorn" in asked[0]
    assert not gate("Segment the dog under the new moon.", DAY).retrieve and len(asked) == 2


@pytest.mark.parametrize("answer", ["", "Perhaps.", "I cannot say yes or no", "notably, it is a dog", "{}"])
def test_an_answer_that_cannot_be_read_lets_the_question_through(answer):
    decision = WebSense(lambda prompt: answer, KNOWN)("Segment the champion.", DAY)
    assert decision.retrieve and decision.by == "default" and "better to look up" in decision.reason


def test_a_model_that_fails_lets_the_question_through_and_says_why():
    def llm(prompt):
        raise OSError("no route to host")

    decision = WebSense(llm, KNOWN)("Segment the champion.", DAY)
    assert decision.retrieve and "no route to host" in decision.reason


def test_without_a_model_or_words_it_knows_everything_is_looked_up():
    decision = WebSense()("Segment the dog.", DAY)
    assert decision.retrieve and decision.by == "default" and "no model" in decision.reason


@given(st.text(max_size=200))
def test_any_text_is_decided_with_a_reason(text):
    decision = GATE(text, DAY)
    assert isinstance(decision.retrieve, bool) and decision.reason
