"""The framework: what each module adds, what is left when one is off or the web is away."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from data_scripts.news import NewsArchive, NewsWorld
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import RoseFramework, words_of
from rose_kit.web.irag import IRAG
from rose_kit.web.net import Client, WebError
from rose_kit.web.providers import Wikimedia
from rose_kit.web.tpe import TPE
from rose_kit.web.types import Mask, Promptable
from rose_kit.web.vpe import Verification
from rose_kit.web.websense import WebSense

KNOWN = words_of(load_encoder("bundled"))
WORLD = NewsWorld(2, date(2026, 1, 1), date(2026, 3, 31), "dev")
ROLE, DAY = WORLD.roles[1], date(2026, 2, 10)
HOLDER = ROLE.holder(DAY)
IMAGE = np.zeros((16, 20, 3), np.uint8)
QUESTION = f"Segment the reigning {ROLE.title}."


class Echo:
    """A segmenter that remembers its prompts."""

    def __init__(self):
        self.prompts = []

    def segment(self, image, prompt):
        self.prompts.append(prompt)
        return Mask(np.ones(image.shape[:2], bool), 0.5)


def empty(image, mask, images):
    """A verification that empties every mask."""
    return Verification(Mask(np.zeros_like(mask.mask), 1.0), "corrected", "to see it", tuple(images))


def unreachable(*args):
    raise WebError("no route to http://example.org")


@pytest.fixture
def framework():
    archive = NewsArchive(WORLD)
    irag = IRAG(archive, matcher=lambda image, references: 0.9, pages=6, images=3)
    return RoseFramework(Echo(), WebSense(known=KNOWN), irag, TPE(archive, KNOWN), empty)


def test_a_result_says_how_it_came_about(framework):
    result = framework.ask(IMAGE, QUESTION, DAY)
    assert isinstance(framework.segmenter, Promptable)
    assert result.decision.by == "rule" and result.answer.text == HOLDER.name and result.retrieval.agreed
    assert all(word in result.prompt for word in (QUESTION, HOLDER.name, HOLDER.thing))
    assert framework.segmenter.prompts == [result.prompt]
    assert result.verification.action == "corrected" and not result.mask.mask.any() and result.failure == ""
    assert all(s.date <= DAY and s.licence.startswith(("Creative", "CC")) for s in result.sources)
    assert any("File:" in s.title for s in result.sources) and len(set(result.sources)) == len(result.sources)


@pytest.mark.parametrize(
    ("off", "prompt", "filled"),
    [
        (("irag", "websense"), QUESTION, True),
        (("tpe", "vpe"), f"Please segment {HOLDER.name}", True),
        (("tpe",), f"Please segment {HOLDER.name}", False),
        (("vpe",), HOLDER.thing, True),
    ],
)
def test_modules_can_be_switched_off(framework, off, prompt, filled):
    result = replace(framework, **dict.fromkeys(off)).ask(IMAGE, QUESTION, DAY)
    assert prompt in result.prompt and result.mask.mask.all() == filled == (result.verification is None)


def test_what_needs_no_look_up_makes_no_call_and_without_an_answer_the_question_is_the_prompt(framework):
    known = "Segment the dog under the new moon."
    result = replace(framework, irag=unreachable).ask(IMAGE, known, DAY)
    assert not result.decision.retrieve and result.prompt == known
    assert result.retrieval is None and result.answer is None and result.sources == ()
    result = framework.ask(IMAGE, "Segment the xyzzy plugh.", DAY)
    assert result.retrieval.answer is None and result.prompt == "Segment the xyzzy plugh."


@pytest.mark.parametrize("part", ["irag", "tpe"])
def test_a_failing_web_leaves_the_plain_segmenter_and_says_so(framework, part):
    with pytest.warns(UserWarning, match="http://example.org"):
        result = replace(framework, **{part: unreachable}).ask(IMAGE, QUESTION, DAY)
    assert result.prompt == QUESTION and result.mask.mask.all() and "http://example.org" in result.failure
    assert result.answer is None and result.verification is None


def test_a_server_that_is_not_there_is_such_a_failure():
    api = "http://127.0.0.1:9/w/api.php"
    gone = Wikimedia(api, api, Client(allow_private=True, seconds=3, hops=1))
    with pytest.warns(UserWarning, match=api):
        assert RoseFramework(Echo(), None, IRAG(gone)).ask(IMAGE, QUESTION, DAY).mask.mask.all()
