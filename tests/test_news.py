"""The miniature web: frozen phrases, a truth for every day, pages, pictures, MediaWiki's API over HTTP."""

import io
import re
from collections import Counter
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_scripts import news
from data_scripts.news import NewsWorld, serve
from data_scripts.news.archive import snippet
from data_scripts.news.bank import SPLITS, bank, fill
from data_scripts.news.photos import LICENCES
from data_scripts.news.truth import difference
from data_scripts.scenes.classes import NOVEL

START, END = date(2026, 1, 1), date(2026, 4, 30)
WORLD = NewsWorld(3, START, END, "dev")
QUESTIONS = ("role_questions", "product_questions", "newest_questions", "static_questions")
DAYS = st.dates(START, END)


def strings(value):
    """All texts in nested tuples."""
    if isinstance(value, str):
        return [value]
    return [s for part in value for s in strings(part)] if isinstance(value, tuple) else []


# --- phrases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("dev", "e9377fbba290397e3ebeeb72777835795b0ef60af2adc5bb7297b89ba424010a"),
        ("eval", "38abae79f4b9e02ad89d86caedcb3566e1ffd5ee67e60c779150c16c23f8461b"),
    ],
)
def test_the_phrase_bank_is_as_it_was_frozen(split, digest):
    told = repr(sorted(vars(bank(split)).items()))
    assert sha256(told.encode()).hexdigest() == digest, "no phrase may change once rules have been written"


def test_no_phrasing_is_in_both_splits():
    dev, judged = vars(bank("dev")), vars(bank("eval"))
    assert dev.keys() == judged.keys()
    classes = set(strings(tuple(role[2] for role in dev["roles"])))
    for key in dev:
        both = set(strings(dev[key])) & set(strings(judged[key])) - classes
        assert both <= {"thing", "stuff", "left", "right"}, key

    def bare(split):  # without slots and punctuation
        texts = strings(tuple(split[key] for key in QUESTIONS))
        return {" ".join(re.findall(r"\w+", re.sub(r"{\w+}", " ", t).casefold())) for t in texts}

    assert bare(dev) & bare(judged) <= {"thing", "stuff", "left", "right"}


@pytest.mark.parametrize("split", SPLITS)
def test_there_are_phrasings_enough_of_every_kind(split):
    words = bank(split)
    lookups = {"emerging": words.role_questions, "novel": words.product_questions + words.newest_questions}
    for questions in lookups.values():
        timed = Counter(hint for _, hint in questions)
        assert len(questions) >= 12 and min(timed[True], timed[False]) >= 6, (
            "half of them hold no word of time"
        )
    hints = Counter(hint for _, _, hint in words.static_questions)
    assert min(hints[True], hints[False]) >= 8
    assert all("{title}" in t or "{event}" in t for t, _ in words.role_questions)


@pytest.mark.parametrize("split", SPLITS)
def test_every_slot_of_every_phrase_is_known(split):
    names = "event title holder former rival kind colour lastyear place name"
    names += " product older maker thing other stuff"
    slots = {name: f"<{name}>" for name in names.split()} | {"day": START}
    filled = [fill(text, **slots) for value in vars(bank(split)).values() for text in strings(value)]
    assert not [text for text in filled if "{" in text or "}" in text]
    with pytest.raises(KeyError, match="title"):
        fill("the {title}", day=START)


def test_an_unknown_split_window_or_seed_is_refused():
    with pytest.raises(ValueError, match="'test'; known: dev, eval"):
        NewsWorld(1, START, END, "test")
    with pytest.raises(ValueError, match="2026-01-01 to 2026-01-11"):
        NewsWorld(1, START, START + timedelta(10))
    with pytest.raises(ValueError, match="-1"):
        NewsWorld(-1, START, END)


# --- truth --------------------------------------------------------------------------------------------------


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


def test_before_the_first_day_nothing_is_known():
    with pytest.raises(ValueError, match="nothing is known"):
        WORLD.roles[0].holder(date(2020, 1, 1))
    with pytest.raises(ValueError, match="'Nobody' had unveiled nothing"):
        WORLD.newest("Nobody", END)


def test_roles_change_within_the_window_and_are_held_by_classes_the_encoder_knows():
    for role in WORLD.roles:
        assert [d for d, _ in role.reigns] == sorted(d for d, _ in role.reigns)
        assert any(START <= d <= END for d, _ in role.reigns)
        assert all((b - a).days >= 10 for (a, _), (b, _) in pairwise(role.reigns))
        assert not {m.thing for m in role.members} & set(NOVEL)
    assert {p.thing for p in WORLD.products} <= set(NOVEL)
    assert len({e.name for e in WORLD.entities}) == len(WORLD.entities)


def test_individuals_of_a_role_and_class_look_different_where_the_class_allows_it():
    boats = WORLD.roles[0].members
    apart = [difference("boat", a.individual, b.individual) for a in boats for b in boats if a is not b]
    assert min(apart) > 12  # grey levels
    sheep = [difference("sheep", i, i + 1) for i in range(40)]
    assert np.median(sheep) < 6, "white wool is white wool, whatever else their looks hold"
    assert difference("cat", 5, 5) == 0 and difference("cat", 5, 6) == difference("cat", 6, 5) > 0


# --- pages and pictures -------------------------------------------------------------------------------------


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
        assert rumour.day < rumour.withdrawn and rumour.rival.name != holder
        told, mended = page.on(rumour.day).text, page.on(rumour.withdrawn).text
        assert rumour.rival.name in told and holder not in told and holder in mended
        spoken = [
            p
            for p in WORLD.pages
            if p.title != role.event and p.on(rumour.day) and not p.on(START - timedelta(400))
        ]
        assert any(rumour.rival.name in p.on(rumour.day).text for p in spoken)
        assert not role.settled(rumour.day) and not role.settled(rumour.withdrawn)


def test_there_are_decoys_about_those_who_do_not_hold_the_role():
    titles = " ".join(p.title for p in WORLD.pages)
    for decoy in ("(song)", "Opinion:", "From the archive:", "A year ago:"):
        assert decoy in titles
    opinions = [p for p in WORLD.pages if p.title.startswith("Opinion:")]
    for page in opinions:
        text, day = page.revisions[0].text, page.revisions[0].saved.date()
        role = next(r for r in WORLD.roles if r.event in text)
        assert role.holder(day).name not in text


def test_what_something_is_stands_on_a_page_of_its_own():
    for who in WORLD.entities:
        text = titled(who.name).on(who.since).text
        assert who.thing in text and who.colour in text
        assert titled(who.name).on(who.since - timedelta(1)) is None


def test_most_pictures_of_something_show_it_and_some_do_not():
    for who in WORLD.entities:
        photos = [p for p in WORLD.photos if p.about is who]
        right = [p for p in photos if p.shows is who]
        assert len(right) >= 4 and 1 <= len(photos) - len(right) <= 2
        assert sum(p.taken <= who.since for p in right) >= 3
        assert all(who.name in p.title and p.licence in LICENCES for p in photos)


# --- the server ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    with serve(WORLD) as base, httpx.Client(base_url=base, timeout=20) as client:
        yield client


@pytest.fixture
def ask(client):
    def call(**given):
        answer = client.get("/w/api.php", params={"format": "json", "formatversion": "2", **given})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/json")
        return answer.json()

    return call


def test_search_ranks_pages_and_goes_on_where_it_stopped(ask):
    role, found, more = WORLD.roles[0], [], {"sroffset": 0}
    while more:
        answer = ask(
            action="query", list="search", srsearch=role.event, srlimit=7, srprop="timestamp|snippet", **more
        )
        found += answer["query"]["search"]
        assert len(answer["query"]["search"]) <= 7 and answer["batchcomplete"] is True
        more = answer.get("continue")
    assert len({hit["pageid"] for hit in found}) == len(found) == answer["query"]["searchinfo"]["totalhits"]
    assert {"ns", "title", "pageid", "timestamp", "snippet"} == found[0].keys()
    assert '<span class="searchmatch">' in found[0]["snippet"] and role.event in {
        h["title"] for h in found[:3]
    }
    assert datetime.fromisoformat(found[0]["timestamp"]).utcoffset() == timedelta(0)
    assert ask(action="query", list="search", srsearch="zzzz qqqq")["query"]["search"] == []


@pytest.mark.parametrize("offset", [0, 20, 45, 70, 119])
def test_a_page_is_read_as_it_was_on_a_day(ask, offset):
    role, day = WORLD.roles[1], START + timedelta(offset)
    seen = {
        "prop": "revisions|info",
        "rvlimit": 1,
        "rvdir": "older",
        "rvprop": "ids|timestamp",
        "inprop": "url",
    }
    answer = ask(action="query", titles=role.event, rvstart=f"{day}T23:59:59Z", **seen)
    (page,) = answer["query"]["pages"]
    (revision,) = page["revisions"]
    wanted = titled(role.event).on(day)
    assert revision["revid"] == wanted.id and page["fullurl"].endswith(
        "/wiki/" + role.event.replace(" ", "_")
    )
    parsed = ask(action="parse", oldid=wanted.id, prop="text")["parse"]
    assert parsed["revid"] == wanted.id and parsed["title"] == role.event
    assert re.sub(r"<[^>]+>", "", parsed["text"]).strip() == wanted.text
    if "continue" in answer:  # the revision before it
        older = ask(action="query", titles=role.event, **seen, **answer["continue"])
        assert older["query"]["pages"][0]["revisions"][0]["revid"] == revision["parentid"]


def test_a_page_that_did_not_exist_yet_has_no_revision_and_an_unknown_one_is_missing(ask):
    given = {"action": "query", "prop": "revisions|info", "rvlimit": 1, "inprop": "url"}
    answer = ask(**given, titles=WORLD.roles[0].event, rvstart="2020-01-01T00:00:00Z")
    assert "revisions" not in answer["query"]["pages"][0] and answer["batchcomplete"] is True
    answer = ask(**given, titles="nowhere_at all")
    assert answer["query"]["pages"][0]["missing"] is True
    assert answer["query"]["normalized"] == [
        {"fromencoded": False, "from": "nowhere_at all", "to": "Nowhere at all"}
    ]


def test_the_licence_of_the_text_is_told(ask):
    rights = ask(action="query", meta="siteinfo", siprop="rightsinfo")["query"]["rightsinfo"]
    assert rights["url"].startswith("https://creativecommons.org/") and "Attribution" in rights["text"]


def test_pictures_are_found_with_their_licence_and_can_be_fetched(ask, client):
    who = WORLD.products[0]
    given = {
        "action": "query",
        "generator": "search",
        "gsrnamespace": 6,
        "gsrsearch": who.name,
        "prop": "imageinfo",
    }
    given |= {"iiprop": "url|timestamp|mime|size|extmetadata", "iiurlwidth": 512}
    answer = ask(**given, gsrlimit=3)
    pages = answer["query"]["pages"]
    assert len(pages) == 3 and [p["pageid"] for p in pages] == sorted(p["pageid"] for p in pages)
    assert {p["index"] for p in pages} == {1, 2, 3} and answer["continue"]["gsroffset"] == 3
    best = next(p for p in pages if p["index"] == 1)
    photo, info = next(p for p in WORLD.photos if p.title == best["title"]), best["imageinfo"][0]
    assert (
        photo.about is who and info["mime"] == "image/png" and info["timestamp"].startswith(f"{photo.taken}T")
    )
    assert info["extmetadata"]["LicenseShortName"]["value"] == photo.licence
    assert info["extmetadata"]["ImageDescription"]["value"] == photo.caption
    got = client.get(info["thumburl"])
    assert got.headers["content-type"] == "image/png" and len(got.content) == info["size"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(got.content))), photo.draw())
    assert ask(**{**given, "gsrnamespace": 0}) == {"batchcomplete": True}
    small = ask(**{**given, "iiurlwidth": 64}, gsrlimit=1)["query"]["pages"][0]["imageinfo"][0]
    assert Image.open(io.BytesIO(client.get(small["thumburl"]).content)).size == (64, 64)
    assert (small["thumbwidth"], small["width"]) == (64, 128)


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"action": "parse", "oldid": "7"}, "nosuchrevid", "no revision with ID 7"),
        ({"action": "parse", "oldid": "x1"}, "badinteger", '"x1"'),
        ({"action": "parse"}, "missingparam", "oldid"),
        ({"action": "delete"}, "badvalue", "delete"),
        ({"action": "query", "list": "search"}, "missingparam", "srsearch"),
        ({"action": "query", "list": "search", "srsearch": "a", "srlimit": "-1"}, "badinteger", "-1"),
        ({"action": "query", "list": "users"}, "badvalue", "users"),
        ({"action": "query", "prop": "links", "titles": "A"}, "badvalue", "links"),
        (
            {"action": "query", "prop": "revisions", "titles": "A|B", "rvlimit": "1"},
            "invalidparammix",
            "single",
        ),
        (
            {"action": "query", "list": "search", "srsearch": "a", "formatversion": "1"},
            "badvalue",
            "formatversion",
        ),
    ],
)
def test_bad_requests_get_mediawikis_error_object(ask, given, code, said):
    error = ask(**given)["error"]
    assert error["code"] == code and said in error["info"] and "api.php" in error["docref"]


def test_a_time_that_is_none_is_refused(ask):
    title = WORLD.roles[0].event
    answer = ask(action="query", prop="revisions", titles=title, rvstart="yesterday")
    assert answer["error"]["code"] == "badtimestamp" and "yesterday" in answer["error"]["info"]


def test_addresses_in_answers_lead_to_pages_and_others_are_not_found(client):
    assert WORLD.roles[0].event in client.get(f"/wiki/{WORLD.roles[0].event.replace(' ', '_')}").text
    assert WORLD.photos[0].caption in client.get(f"/wiki/{WORLD.photos[0].title}").text
    for path in ("/", "/wiki/Nowhere", "/images/nothing.png", "/images/thumb/a/9999px-a", "/w/other.php"):
        assert client.get(path).status_code == 404


def test_the_server_is_gone_afterwards():
    with serve(WORLD) as base:
        assert httpx.get(f"{base}/wiki/{WORLD.roles[0].event}").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(base)


def test_what_a_text_quotes_is_no_markup():
    assert snippet("a <b> & c", "b") == 'a &lt;<span class="searchmatch">b</span>&gt; &amp; c'
    page = news.Revision(1, datetime(2026, 1, 1), "<script>x</script>\nTea & cake")
    assert "<script>" not in page.html and "Tea &amp; cake" in page.html and page.html.count("<p>") == 2
