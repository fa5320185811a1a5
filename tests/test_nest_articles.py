"""A benchmark from a folder of real articles: what they say and show, on their day."""

import json
from datetime import date

import numpy as np
import pytest
from PIL import Image
from skimage import data

from data_scripts.news import ArticleWorld, NewsArchive
from data_scripts.news.__main__ import app
from data_scripts.news.nest import build_from_articles, load_nest, roles_by_model, run_nest, save_nest
from data_scripts.news.nest.run import measure
from data_scripts.news.nest.systems import Result
from rose_kit.data import DataError

HTML = """<html><head><title>An evening in the hall</title>
<meta property="article:published_time" content="2026-03-05"></head><body><article>
<h1>An evening in the hall</h1><p>The lamps of the hall were lit again last night, and many came.</p>
<figure><img src="hall.png" alt="the hall"><figcaption>Chelsea beside a cup of coffee</figcaption></figure>
<p>Chelsea slept through the whole of the concert, as the keepers of the museum had hoped.</p>
</article></body></html>
"""


@pytest.fixture
def folder(tmp_path):
    """A cat with a name, an office and a successor; a photograph of her beside a cup, with a mask of each."""
    cat, cup = data.chelsea()[:300, :400], data.coffee()[:300, 100:500]  # (300, 400, 3) each
    folder = tmp_path / "articles"
    (folder / "masks" / "hall").mkdir(parents=True)
    Image.fromarray(cat).save(folder / "portrait.png")
    Image.fromarray(np.concatenate([cat, cup], 1)).save(folder / "hall.png")
    columns = np.arange(800)[None].repeat(300, 0)  # (300, 800)
    for name, chosen in (("Chelsea", columns < 400), ("cup", columns >= 450)):
        Image.fromarray((chosen * 255).astype(np.uint8)).save(folder / "masks" / "hall" / f"{name}.png")
    story = {"title": "A mouser for the museum", "date": "2026-03-01", "licence": "CC BY 4.0"}
    text = "It took two votes. Chelsea has been named the official mouser of the museum. All are glad."
    story |= {"url": "http://a.example", "text": text}
    story["images"] = [{"file": "portrait.png", "caption": "Chelsea, photographed on Sunday"}]
    (folder / "vote.json").write_text(json.dumps(story))
    (folder / "hall.html").write_text(HTML)
    rumour = "Is Felix next?\n2026-03-20\nIf Felix is the official mouser of the museum by May, eat my hat."
    (folder / "rumour.txt").write_text(rumour)
    change = "# Felix takes over\n2026-04-10\nFelix is the new official mouser of the museum."
    (folder / "change.md").write_text(change)
    return folder


ROLE = "official mouser of the museum"


def test_questions_are_of_what_the_articles_say_and_show_on_their_day(folder, tmp_path):
    days = []
    for seed in range(8):
        world = ArticleWorld(folder, seed, "dev")
        assert (world.start, world.end) == (date(2026, 3, 1), date(2026, 4, 10))
        nest = build_from_articles(world, 10, nest_share=0.5, size=200)
        samples = {s.kind: s for s in nest}
        answers = {"emerging": "Chelsea", "novel": "Chelsea", "static": "cup"}
        assert {s.kind: s.answer for s in nest} == answers
        first = date(2026, 3, 6)
        assert first <= samples["emerging"].day <= date(2026, 4, 9) and ROLE in samples["emerging"].question
        assert first <= samples["novel"].day <= date(2026, 3, 29) and "Chelsea" in samples["novel"].question
        days.append(samples["emerging"].day)
        assert "cup" in samples["static"].question and samples["static"].day >= first
        assert samples["novel"].image.shape == (75, 200, 3)
        assert np.array_equal(samples["novel"].mask, np.arange(200)[None].repeat(75, 0) < 100)
    assert max(days) > date(2026, 3, 20)  # the rumour of that day changes nothing
    back = load_nest(save_nest(nest, tmp_path / "nest"))
    assert [vars(s).keys() for s in back] == [vars(s).keys() for s in nest] and back.world.seed == world.seed
    for a, b in zip(back, nest, strict=True):
        assert np.array_equal(a.mask, b.mask)
        assert (a.question, a.day, a.answer) == (b.question, b.day, b.answer)

    def systems(archive):
        return {"half": lambda image, question, day: Result(np.arange(200)[None].repeat(75, 0) < 100)}

    rows = measure([back], systems, False), run_nest(nest, systems(None), False)
    first, second = ({row["kind"]: row["iou"] for row in own} for own in rows)
    assert first == second


def test_the_web_of_the_articles_knows_no_future_and_not_the_images_that_are_asked_about(folder):
    archive = NewsArchive(ArticleWorld(folder))
    page, *others = archive.search("official mouser", 5, date(2026, 3, 19))
    assert (page.source.url, page.source.licence, others) == ("http://a.example", "CC BY 4.0", [])
    assert len(archive.search("official mouser", 5, date(2026, 4, 10))) == 3
    (image,) = archive.images("Chelsea", 5, date(2026, 4, 10))
    assert image.caption == "Chelsea, photographed on Sunday" and image.image.shape == (300, 400, 3)
    assert archive.images("Chelsea", 5, date(2026, 2, 28)) == []
    for file in ("vote.json", "portrait.png"):
        (folder / file).unlink()
    assert NewsArchive(ArticleWorld(folder)).images("Chelsea", 5, date(2026, 4, 10)) == []


def test_what_is_doubted_disputed_unsupported_or_too_small_is_not_asked(folder):
    def discards():
        return build_from_articles(ArticleWorld(folder), 10, nest_share=0.5).discards

    assert discards()["emerging"] == {}
    (folder / "other.txt").write_text("Not so\n2026-03-01\nFelix is the official mouser of the museum.")
    kinds = {s.kind for s in build_from_articles(ArticleWorld(folder), 10)}
    assert kinds == {"novel"}  # two names on one day
    (folder / "other.txt").unlink()
    tiny = np.pad(np.full((9, 9), 255, np.uint8), ((0, 291), (791, 0)))
    Image.fromarray(tiny).save(folder / "masks" / "hall" / "cup.png")
    assert discards()["static"] == {"hidden": 1}
    story = json.loads((folder / "vote.json").read_text()) | {"images": []}
    (folder / "vote.json").write_text(json.dumps(story))
    (folder / "portrait.png").unlink()
    with pytest.raises(DataError, match="novel unsupported 1, emerging unsupported 1"):
        discards()


def test_a_model_reads_roles_and_what_it_makes_up_is_dropped(folder):
    asked = []

    def llm(prompt):
        asked.append(prompt)
        said = [{"role": "keeper of the hall", "holder": "Chelsea"}, {"role": "king", "holder": "Chelsea"}]
        return f"Here you are: {json.dumps(said)}" if "concert" in prompt else "I would rather not."

    (folder / "hall.html").write_text(HTML.replace("Chelsea slept", "Chelsea, keeper of the hall, slept"))
    nest = build_from_articles(ArticleWorld(folder), 10, read_roles=roles_by_model(llm))
    assert [s.answer for s in nest if s.kind == "emerging"] == ["Chelsea"] and len(asked) == 4
    assert "keeper of the hall" in next(s.question for s in nest if s.kind == "emerging")
    for name in ("portrait.png", "vote.json"):
        (folder / name).unlink()
    for reply in ("[1]", '[{"role": 3, "holder": "Chelsea"}]', '[{"role": "king"}]', "[", ""):
        with pytest.raises(DataError, match="unsupported 1|nothing to ask"):
            read = roles_by_model(lambda prompt, reply=reply: reply)
            build_from_articles(ArticleWorld(folder), 10, read_roles=read)


BAD = {
    "no date": ("bad.txt", "A headline\nand no day\nbut a text", "bad.txt.*no date here"),
    "no object": ("bad.json", "[1]", "bad.json.*must be an object"),
    "elsewhere": ("bad.txt", "A\n2026-01-01\nb ![c](../portrait.png)", "'../portrait.png' must be a file"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_article_that_cannot_be_used_is_named(folder, refused, tmp_path, name):
    file, content, said = BAD[name]
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=said):
        ArticleWorld(folder)
    refused("--articles", folder, "--out", tmp_path / "made", app=app, said=[file])


def test_the_command_reads_articles(folder, run, refused, tmp_path):
    run("--articles", folder, "--out", tmp_path / "made", "--plus", "--split", "test", app=app)
    made = load_nest(tmp_path / "made")
    assert {s.kind for s in made} == {"emerging", "novel", "static"}
    assert "vote.json" in {path.name for path in (tmp_path / "made" / "articles").iterdir()}
    refused("--articles", folder, "--out", tmp_path / "b", "--start", "2026-01-01", app=app, said=["--start"])
    (folder / "masks" / "attic").mkdir()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / "masks" / "attic" / "cup.png")
    refused("--articles", folder, "--out", tmp_path / "b", app=app, said=["attic"])
