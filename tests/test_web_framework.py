"""The framework: what each module adds, and what is left when one is off or the web is away."""

from datetime import date

import numpy as np
import pytest

from data_scripts.news import THRESHOLDS, NewsArchive, NewsWorld
from data_scripts.scenes import SEEN_NAMES
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import RoseFramework
from rose_kit.web.irag import IRAG
from rose_kit.web.net import Client
from rose_kit.web.providers import Wikimedia
from rose_kit.web.tpe import TPE
from rose_kit.web.types import Mask
from rose_kit.web.vpe import Match, Thresholds, Verification

KNOWN, LIMITS = SEEN_NAMES, Thresholds.load(THRESHOLDS)
WORLD = NewsWorld(2, date(2026, 1, 1), date(2026, 3, 31), "dev")
ROLE, DAY = WORLD.roles[1], date(2026, 2, 10)
HOLDER = ROLE.holder(DAY)
IMAGE = np.zeros((16, 20, 3), np.uint8)
QUESTION = f"Segment the reigning {ROLE.title}."
API = "http://127.0.0.1:9/w/api.php"
GONE = Wikimedia(API, API, Client(allow_private=True, seconds=3, hops=1))


class Full:
    """A segmenter whose masks are full."""

    def segment(self, image, prompt):
        return Mask(np.ones(image.shape[:2], bool), 0.5)


class Emptied:
    """A verification that empties every mask."""

    def __call__(self, image, mask, references):
        return Verification(Mask(np.zeros_like(mask.mask), 1.0), "corrected", "test", tuple(references))

    def verify(self, mask, match):
        return self(None, mask, match.used)


class Counting(NewsArchive):
    """A place to search that notes what it was asked for."""

    def __init__(self):
        super().__init__(WORLD)
        self.asked = []

    def images(self, query, *rest):
        self.asked.append(query)
        return super().images(query, *rest)


@pytest.fixture
def framework():
    archive = Counting()
    matcher = lambda image, found: {n: Match(tuple(r), similarity=0.9) for n, r in found.items()}  # noqa: E731
    irag = IRAG(archive, matcher, pages=6, images=3)
    whole = RoseFramework(Full(), archive, load_encoder("bundled"), known=KNOWN, thresholds=LIMITS)
    return whole.replace(irag=irag, vpe=Emptied())


def test_a_result_says_how_it_came_about(framework):
    result = framework.ask(IMAGE, QUESTION, DAY)
    assert result.decision.by == "rule" and result.answer.text == HOLDER.name and result.retrieval.agreed
    assert all(word in result.background.prompt for word in (QUESTION, HOLDER.name, HOLDER.thing))
    assert result.verification.action == "corrected" and not result.mask.mask.any() and result.failure == ""
    assert all(s.date <= DAY and s.licence.startswith(("Creative", "CC")) for s in result.sources)
    assert len({step.name for step in result.steps}) >= 12 and result.steps[-1].made == "corrected"
    asked = framework.irag.provider.asked
    assert HOLDER.name in asked and len(asked) == len(set(asked))
    assert any("File:" in s.title for s in result.sources) and len(set(result.sources)) == len(result.sources)
    result = framework.ask(IMAGE, "Segment the xyzzy plugh.", date(2000, 1, 1))  # before any news
    assert result.retrieval.answer is None and result.background.prompt == "Segment the xyzzy plugh."
    with pytest.raises(ValueError, match="' '"):
        framework.ask(IMAGE, " ", DAY)


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
    result = framework.replace(**dict.fromkeys(off)).ask(IMAGE, QUESTION, DAY)
    assert prompt in result.background.prompt and result.mask.mask.all() == filled == (
        result.verification is None
    )


@pytest.mark.parametrize("module", [{"irag": IRAG(GONE)}, {"tpe": TPE(GONE, KNOWN)}])
def test_a_failing_web_leaves_the_plain_segmenter_and_says_so_where_the_web_is_needed(framework, module):
    framework = framework.replace(**module)
    with pytest.warns(UserWarning, match=API):
        result = framework.ask(IMAGE, QUESTION, DAY)
    assert result.background.prompt == QUESTION and result.mask.mask.all() and API in result.failure
    assert result.answer is None and result.verification is None
    known = framework.ask(IMAGE, "Segment the dog under the new moon.", DAY)
    assert known.failure == "" and not known.decision.retrieve and known.sources == ()


def test_words_and_thresholds_are_given_as_no_encoder_has_its_own():
    archive = NewsArchive(WORLD)
    for name in ("bundled/clear", "handcrafted"):
        encoder = load_encoder(name)
        with pytest.raises(ValueError, match=f"no thresholds for '{name}"):
            RoseFramework(Full(), archive, encoder, known=(), thresholds=None)
    limits = Thresholds(0.4, 0.1, 0.2, 0.6, 0.5)
    framework = RoseFramework(Full(), archive, encoder, known=("unicorn",), thresholds=limits)
    assert framework.websense.known == ("unicorn",)
    assert framework.tpe.known == framework.irag.known == ("unicorn",) and framework.vpe.thresholds == limits
    assert framework.irag.visible_from == limits.correct
