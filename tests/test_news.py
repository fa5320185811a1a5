"""The miniature web: frozen phrases, a truth for every day, and an archive without the future."""

from datetime import date, timedelta
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts.news import NewsArchive, NewsWorld
from data_scripts.news.bank import bank

START, END = date(2026, 1, 1), date(2026, 4, 30)
WORLD = NewsWorld(3, START, END, "dev")
ARCHIVE = NewsArchive(WORLD)


DIGESTS = {
    "dev": "e9377fbba290397e3ebeeb72777835795b0ef60af2adc5bb7297b89ba424010a",
    "eval": "38abae79f4b9e02ad89d86caedcb3566e1ffd5ee67e60c779150c16c23f8461b",
}


def test_the_phrase_bank_is_as_it_was_frozen_before_the_rules_were_written():
    for split, digest in DIGESTS.items():
        assert sha256(repr(sorted(vars(bank(split)).items())).encode()).hexdigest() == digest


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
