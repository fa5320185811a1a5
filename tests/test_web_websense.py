"""WebSense: time about what is asked for, and not elsewhere; what cannot be decided is looked up."""

from datetime import date

import pytest

from data_scripts.scenes import SEEN_NAMES
from rose_kit.web.websense import WebSense

KNOWN = SEEN_NAMES
DAY = date(2026, 3, 1)
GATE = WebSense(known=KNOWN)
NEEDED = [  # phrasings of no phrase bank
    "Segment the boat that won the cup.",
    "Which dog is the current champion? Segment it.",
    "segment the aerix hawk",
    "Segment this year's mayor.",
    "What has Aerix just launched?",
    "I'd like to have the holder of the record segmented",
    "Who's holding the cup this week? Outline them.",
    "Where's the car of the year?",
    "Find the flower that beat all others at the show this spring.",
    "Segment the sheep that was made town guardian.",
    "Segment the boat that is the reigning champion.",
]
NEEDLESS = [
    "Segment the cat sitting on the latest issue of the magazine.",
    "With the new moon up, find the boat.",
    "In yesterday's picture, where's the dog?",
    "the buses",
    "Segment the kite that looks like it won the cup.",
    "segment the red car parked near the bank that was opened in 2021",
    "On the day of the big match, shade the bicycle furthest to the left.",
    "The current keeps pushing the boat; outline it.",
    "Segment the boat that has won the hearts of children.",
    "As a former designer, I'd like the lamp cut out.",
    "Which area does the dog cover?",
    "Segment the cup named after my aunt.",
    "Only the water, thanks.",
    "Segment the clock that came first into the frame.",
    "Today's task: extract the tree.",
]


@pytest.mark.parametrize("question", NEEDED + NEEDLESS)
def test_what_depends_on_the_day_or_on_news_is_looked_up_and_nothing_else(question):
    assert GATE(question, DAY).retrieve == (question in NEEDED)


def late(prompt):
    raise OSError("no answer within 30 seconds")


@pytest.mark.parametrize(
    ("llm", "retrieve", "by"),
    [
        (lambda prompt: "NO, that is a mountain.", False, "model"),
        (lambda prompt: "**Yes**", True, "model"),
        (lambda prompt: "", True, "default"),
        (lambda prompt: "notably, it is a mountain", True, "default"),
        (late, True, "default"),
        (None, True, "default"),
    ],
)
def test_a_model_decides_what_rules_leave_open_and_without_a_clear_answer_it_is_looked_up(llm, retrieve, by):
    gate = WebSense(llm, KNOWN)
    decision = gate("Segment the matterhorn.", DAY)
    assert (decision.retrieve, decision.by) == (retrieve, by) and decision.reason
    assert gate("Segment the current champion.", DAY).by == "rule" == gate("Segment the dog.", DAY).by
    other = gate("Now segment the dog.", DAY)  # a model is asked; if it says nothing, it is as without
    assert (other.retrieve, other.by) == ((retrieve, by) if by == "model" else (False, "rule"))
