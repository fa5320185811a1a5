"""The framework: what each module adds, what is left when one is off or the web is away."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from data_scripts.news import NewsWorld, serve
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import RoseFramework, matcher, words_of
from rose_kit.web.irag import IRAG
from rose_kit.web.net import Client, WebError
from rose_kit.web.providers import Wikimedia
from rose_kit.web.tpe import TPE
from rose_kit.web.types import Mask, Picture, Promptable, Source
from rose_kit.web.vpe import Verified
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


def check(image, mask, pictures):
    """A verification that empties every mask."""
    used = tuple(pictures)
    return Verified(Mask(np.zeros_like(mask.mask), 1.0), "corrected", "to see it", used)


@pytest.fixture(scope="module")
def provider():
    with serve(WORLD) as base:
        api = f"{base}/w/api.php"
        yield Wikimedia(api, api, Client(allow_private=[base.removeprefix("http://")]))


@pytest.fixture
def framework(provider):
    irag = IRAG(provider, matcher=lambda image, pictures: 0.9, pages=6, pictures=3)
    return RoseFramework(Echo(), WebSense(known=KNOWN), irag, TPE(provider, KNOWN), check)


def test_all_modules_leave_their_trail(framework):
    trail = framework.ask(IMAGE, QUESTION, DAY)
    assert isinstance(framework.segmenter, Promptable)
    assert trail.decision.by == "rule" and trail.answer.text == HOLDER.name and trail.findings.agreed
    assert trail.prompt.startswith(QUESTION) and HOLDER.name in trail.prompt and HOLDER.thing in trail.prompt
    assert framework.segmenter.prompts == [trail.prompt]
    assert trail.verified.action == "corrected" and not trail.mask.mask.any() and trail.failure == ""
    assert {s.url.rsplit("/", 1)[0].rsplit("/", 1)[-1] for s in trail.sources} == {"wiki"}
    assert all(s.date <= DAY and s.licence.startswith(("Creative", "CC")) for s in trail.sources)
    assert any("File:" in s.title for s in trail.sources) and len(set(trail.sources)) == len(trail.sources)


@pytest.mark.parametrize(
    ("off", "prompt", "filled"),
    [
        (("irag",), QUESTION, True),
        (("irag", "websense"), QUESTION, True),
        (("tpe", "vpe"), f"Please segment {HOLDER.name}", True),
        (("tpe",), f"Please segment {HOLDER.name}", False),
        (("vpe",), None, True),
    ],
)
def test_modules_can_be_switched_off(framework, off, prompt, filled):
    trail = replace(framework, **dict.fromkeys(off)).ask(IMAGE, QUESTION, DAY)
    assert trail.prompt == prompt or (prompt is None and HOLDER.thing in trail.prompt)
    assert trail.mask.mask.all() == filled and (trail.verified is None) == filled


def test_what_needs_no_look_up_makes_no_call(framework):
    def irag(*args):
        raise AssertionError("it was looked up")

    trail = replace(framework, irag=irag).ask(IMAGE, "Segment the dog under the new moon.", DAY)
    assert not trail.decision.retrieve and trail.prompt == "Segment the dog under the new moon."
    assert trail.findings is None and trail.answer is None and trail.sources == ()
    with pytest.raises(AssertionError, match="looked up"):
        replace(framework, irag=irag, websense=None).ask(IMAGE, "Segment the dog.", DAY)


def test_without_an_answer_the_question_itself_is_the_prompt(framework):
    trail = framework.ask(IMAGE, "Segment the xyzzy plugh.", DAY)
    assert (
        trail.findings.answer is None and trail.prompt == "Segment the xyzzy plugh." and trail.mask.mask.all()
    )


@pytest.mark.parametrize("part", ["irag", "tpe"])
def test_a_failing_web_leaves_the_plain_segmenter_and_says_so(framework, part):
    def fail(*args):
        raise WebError("cannot search http://example.org (no route); a folder still works")

    broken = replace(framework, **{part: fail})
    with pytest.warns(UserWarning, match="no route.*a folder still works.*plain segmenter"):
        trail = broken.ask(IMAGE, QUESTION, DAY)
    assert trail.prompt == QUESTION and trail.mask.mask.all() and "no route" in trail.failure
    assert trail.answer is None and trail.verified is None


def test_a_server_that_is_gone_is_such_a_failure():
    with serve(WORLD) as base:
        api = f"{base}/w/api.php"
    gone = Wikimedia(api, api, Client(allow_private=True, seconds=3, hops=1))
    framework = RoseFramework(Echo(), None, IRAG(gone))
    with pytest.warns(UserWarning, match=f"cannot search.*{api}.*still works"):
        assert framework.ask(IMAGE, QUESTION, DAY).mask.mask.all()


def test_the_matcher_is_the_best_proposal_and_0_for_none():
    def vpe(image, mask, pictures):
        assert not mask.mask.any() and mask.mask.shape == image.shape[:2]
        return Verified(mask, "kept", "", proposed=0.7 if pictures else np.nan)

    picture = Picture(Source("x", "y"), IMAGE)
    assert matcher(vpe)(IMAGE, [picture]) == 0.7 and matcher(vpe)(IMAGE, []) == 0.0
