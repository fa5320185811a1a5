"""The miniature web: frozen phrases, a truth for every day, pages, images, and the archive of them."""

from datetime import date, timedelta
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts.news import NewsArchive, NewsWorld
from data_scripts.news.bank import bank
from data_scripts.news.photos import LICENCES
from data_scripts.scenes.classes import NOVEL
from rose_kit.web.types import Provider

START, END = date(2026, 1, 1), date(2026, 4, 30)
WORLD = NewsWorld(3, START, END, "dev")
ARCHIVE = NewsArchive(WORLD)
DAYS = st.dates(START, END)


DIGESTS = {
    "dev": "e9377fbba290397e3ebeeb72777835795b0ef60af2adc5bb7297b89ba424010a",
    "eval": "38abae79f4b9e02ad89d86caedcb3566e1ffd5ee67e60c779150c16c23f8461b",
}


def test_the_phrase_bank_is_as_it_was_frozen_before_the_rules_were_written():
    for split, digest in DIGESTS.items():
        assert sha256(repr(sorted(vars(bank(split)).items())).encode()).hexdigest() == digest


def test_an_unknown_split_window_or_seed_is_refused():
    for world in ((1, START, END, "test"), (1, START, START + timedelta(10)), (-1, START, END)):
        with pytest.raises(ValueError, match="'test'|2026-01-11|-1"):
            NewsWorld(*world)
    with pytest.raises(ValueError, match="2020-01-01"):
        WORLD.roles[0].holder(date(2020, 1, 1))


def test_the_same_seed_gives_the_same_web_and_another_another():
    again, other = NewsWorld(3, START, END, "dev"), NewsWorld(4, START, END, "dev")
    assert again.pages == WORLD.pages and again.photos == WORLD.photos and again.roles == WORLD.roles
    assert other.pages != WORLD.pages and other.roles != WORLD.roles and other.products != WORLD.products
    assert np.array_equal(again.photos[0].draw(), WORLD.photos[0].draw())


@given(DAYS)
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


def test_roles_change_within_the_window_and_are_held_by_classes_the_encoder_knows():
    for role in WORLD.roles:
        assert any(START <= d <= END for d, _ in role.reigns)
        assert all((b - a).days >= 10 for (a, _), (b, _) in pairwise(role.reigns))
        assert not {m.thing for m in role.members} & set(NOVEL)
    assert {p.thing for p in WORLD.products} <= set(NOVEL)
    assert len({e.name for e in WORLD.entities}) == len(WORLD.entities)


def titled(title):
    return next(p for p in WORLD.pages if p.title == title)


def test_every_change_is_reported_on_its_day_and_the_events_page_follows_within_two():
    lags = set()
    for role in WORLD.roles:
        for first, holder in role.reigns:
            texts = [r.text for p in WORLD.pages for r in p.revisions if r.saved.date() == first]
            assert [t for t in texts if holder.name in t and role.title in t]
            told = (titled(role.event).on(first + timedelta(k)) for k in range(3))
            knows = [page is not None and holder.name in page.text for page in told]
            assert knows[2] and knows == sorted(knows)
            lags.add(knows.index(True))
    assert lags == {0, 1, 2}


def test_a_rumour_is_on_the_events_page_until_it_is_withdrawn():
    rumours = [(role, rumour) for role in WORLD.roles for rumour in role.rumours]
    assert len(rumours) >= len(WORLD.roles) / 2
    for role, rumour in rumours:
        page, holder = titled(role.event), role.holder(rumour.withdrawn).name
        early, late = page.on(rumour.day).text, page.on(rumour.withdrawn).text
        assert rumour.rival.name in early and holder not in early and holder in late
        assert not role.settled(rumour.day) and not role.settled(rumour.withdrawn)


def test_what_something_is_stands_on_its_own_page_and_most_of_its_images_show_it():
    for who in WORLD.entities:
        text = titled(who.name).on(who.since).text
        assert who.thing in text and who.colour in text
        assert titled(who.name).on(who.since - timedelta(1)) is None
        photos = [p for p in WORLD.photos if p.about is who]
        right = [p for p in photos if p.shows is who]
        assert len(right) >= 4 and 1 <= len(photos) - len(right) <= 2
        assert all(who.name in p.title and p.licence in LICENCES for p in photos)


@pytest.mark.parametrize("day", [START, END])
def test_the_archive_reads_pages_as_they_were_and_nothing_from_the_future(day):
    role, who = WORLD.roles[1], WORLD.products[-1]
    assert isinstance(ARCHIVE, Provider)
    found = ARCHIVE.search(role.event, 8, day)
    assert role.event in {page.source.title for page in found} and len(found) == 8
    for page in found:
        revision = titled(page.source.title).on(day)
        assert page.text == revision.text and page.source.date == revision.saved.date() <= day
    assert (who.name in {p.source.title for p in ARCHIVE.search(who.name, 3, day)}) == (who.since <= day)
    assert ARCHIVE.search("zzzz qqqq") == [] == ARCHIVE.images("zzzz qqqq")


def test_the_archives_images_bear_the_name_with_date_and_licence():
    who = WORLD.products[0]
    found = ARCHIVE.images(who.name, 3, who.since)
    photos = {photo.title: photo for photo in WORLD.photos}
    for image in found:
        photo = photos[image.source.title]
        assert photo.about is who and image.caption == photo.caption and image.source.date <= who.since
        assert image.source.licence == photo.licence and np.array_equal(image.image, photo.draw())
    assert len(found) == 3
