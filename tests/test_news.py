"""The miniature web: frozen phrases, a truth for every day, and an archive without the future."""

import re
from datetime import date, timedelta
from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts.news import NewsArchive, NewsWorld
from data_scripts.news.bank import PHRASES, SPLITS, bank, tables

START, END = date(2026, 1, 1), date(2026, 4, 30)
WORLD = NewsWorld(3, START, END, "dev")
ARCHIVE = NewsArchive(WORLD)


DIGESTS = {
    "dev": "e9377fbba290397e3ebeeb72777835795b0ef60af2adc5bb7297b89ba424010a",
    "dev_class_roles": "69729699736ea1833532809d3cadf014b485a7e8b45fc582b0fd9e603302533e",
    "eval": "38abae79f4b9e02ad89d86caedcb3566e1ffd5ee67e60c779150c16c23f8461b",
    "test": "5b6b757a2eefbb837ba45eff0073e9b231d8f77248c9f7c3e9140f00bd0bb3df",
}


def test_the_phrase_bank_is_as_it_was_frozen_before_the_rules_were_written():
    found = {path.stem: repr(sorted(tables(path).items())).encode() for path in PHRASES.glob("*.toml")}
    assert {name: sha256(text).hexdigest() for name, text in found.items()} == DIGESTS


def phrases_of(split):
    """Every name and phrase of a split as words alone; the class names of roles are everybody's."""

    def texts(value):
        parts = (t for item in value for t in texts(item)) if isinstance(value, tuple) else ()
        return [value] if isinstance(value, str) else list(parts)

    banked = dict(vars(bank(split)))
    for name in ("roles", "class_roles"):
        banked[name] = tuple(row[:2] for row in banked[name])
    banked["static_questions"] = tuple(text for _, text, _ in banked["static_questions"])
    return {" ".join(re.findall(r"\w+", text.casefold())) for text in texts(tuple(banked.values()))}


@pytest.mark.parametrize("one, other", list(combinations(SPLITS, 2)))
def test_splits_share_no_phrase_name_maker_or_role(one, other):
    assert not phrases_of(one) & phrases_of(other)


def test_the_same_seed_gives_the_same_web_and_another_another():
    again, other = NewsWorld(3, START, END, "dev"), NewsWorld(4, START, END, "dev")
    assert again.pages == WORLD.pages and again.photos == WORLD.photos and again.roles == WORLD.roles
    assert other.pages != WORLD.pages and other.roles != WORLD.roles and other.products != WORLD.products
    assert np.array_equal(again.photos[0].draw(), WORLD.photos[0].draw())


@given(st.dates(START, END))
@settings(max_examples=60, deadline=None)
def test_one_individual_holds_a_role_and_holds_it_until_the_next_change(day):
    for role in WORLD.roles:
        holder = role.holder(day)
        first = max(d for d, _ in role.reigns if d <= day)
        assert dict(role.reigns)[first] is holder and holder in role.members
        assert role.holder(day, back=1) is not holder
        if first != day:
            assert role.holder(day - timedelta(1)) is holder
    for maker in {p.maker for p in WORLD.products}:
        newest = WORLD.newest(maker, day)
        assert newest.since <= day
        assert not [p for p in WORLD.products if p.maker == maker and newest.since < p.since <= day]


@pytest.mark.parametrize("day", [START, END])
def test_the_archive_reads_pages_as_they_were_and_nothing_from_the_future(day):
    role, who = WORLD.roles[1], WORLD.products[-1]
    titled = {page.title: page for page in WORLD.pages}
    found = ARCHIVE.search(role.event, 8, day)
    assert role.event in {page.source.title for page in found} and len(found) == 8
    for page in found:
        revision = titled[page.source.title].on(day)
        assert page.text == revision.text and page.source.date == revision.saved.date() <= day
    assert (who.name in {p.source.title for p in ARCHIVE.search(who.name, 3, day)}) == (who.since <= day)
    assert ARCHIVE.search("zzzz qqqq", 8, day) == [] == ARCHIVE.images("zzzz qqqq", 8, day)
