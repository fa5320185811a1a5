"""Vague language: captions whose rates are what they say, and text towers trained on them."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rose_kit.encoder.loading as loading
from data_scripts.bundled import text_tower, zero_shot
from data_scripts.bundled.__main__ import app
from data_scripts.bundled.corpus import phrases
from data_scripts.bundled.language import KIND, WORDS, Language, View, second_meanings, write_captions
from data_scripts.bundled.text_tower import TextRecipe, build_features, train_text_tower
from data_scripts.scenes import NOVEL, SEEN, THINGS, draw_scene
from rose_kit.encoder import WeightsUnavailable, load_encoder
from rose_kit.encoder.base import content_hash
from rose_kit.encoder.loading import TEXT, TOWERS, WEIGHTS

BUS, CACTUS = (View({name: 1}, {name: 0.2}, ("sky", "sand", "road"), "day") for name in ("bus", "cactus"))
SEED = next(seed for seed in range(9) if "bus" in second_meanings(Language(), seed).values())
CLEAR = Language(brief=0, kind=0, borrowed=0, strange=0, stuff=0)
ONE_NOUN = replace(CLEAR, brief=1)  # at any dial but 0
RECORDS = Path(text_tower.__file__).with_name("records")
STUFF = {word for name in BUS.stuff for word in WORDS[name]}


def share(captions, words):
    """The share of captions with a noun among some words."""
    return np.mean([any(p.split(" ", 1)[1] in words for p in phrases(caption)) for caption in captions])


@pytest.mark.parametrize("dial", [0.5, 2.0])
def test_each_way_to_be_vague_strikes_as_often_as_its_rate_says(dial):
    rate, count = 1 - 0.7**dial, 800
    deviation = np.sqrt(rate * (1 - rate) / count)

    def buses(language, views=(BUS,), **rates):
        language = replace(language, dial=dial, **rates)
        return write_captions(list(views) * count, language, SEED)[:: len(views)]

    lent = {word for word, name in second_meanings(CLEAR, SEED).items() if name == "bus"}
    found = {
        "brief": 1 - share(buses(CLEAR, brief=0.3), STUFF) / (1 - 3 / 32),  # 3 of 32 long ones name no stuff
        "kind": share(buses(ONE_NOUN, kind=0.3), ["vehicle"]),
        "borrowed": share(buses(ONE_NOUN, borrowed=0.3), lent),
    }
    assert found == pytest.approx(dict.fromkeys(found, rate), abs=4.5 * deviation)
    other = share(buses(ONE_NOUN, (BUS, CACTUS), strange=0.3), WORDS["cactus"])
    assert other == pytest.approx(rate / 2, abs=4.5 * deviation)  # half of the other images are of buses too
    assert share(buses(ONE_NOUN, stuff=0.3), STUFF) == pytest.approx(0.3, abs=4.5 * np.sqrt(0.21 / count))


def test_clear_captions_are_of_their_image_in_its_own_words():
    captions = write_captions([BUS] * 500, Language(dial=0), SEED)
    own = {*STUFF, *WORDS["bus"]}
    assert {p.split(" ", 1)[1] for caption in captions for p in phrases(caption)} == own


def test_second_meanings_come_from_all_words_and_classes_alike():
    draws = [second_meanings(Language(), seed) for seed in range(150)]
    word_of = {word: name for name, words in WORDS.items() for word in words}
    assert all(word_of[word] != name for draw in draws for word, name in draw.items())
    words, classes = (
        Counter(item for draw in draws for item in part)
        for part in ((w for draw in draws for w in draw), (c for draw in draws for c in draw.values()))
    )
    for counts, all_of_them in ((words, word_of), (classes, SEEN)):
        mean = counts.total() / len(all_of_them)
        assert counts.keys() == set(all_of_them)
        assert all(abs(n - mean) < 4.5 * np.sqrt(mean) for n in counts.values())
    assert words.total() == pytest.approx(0.5 * 150 * len(word_of), rel=0.04)


def test_large_things_are_named_first_and_novel_ones_never():
    view = View({"bus": 1, "bird": 1}, {"bus": 0.3, "bird": 0.1}, ("sky",), "day")
    captions = write_captions([view] * 800, replace(ONE_NOUN, dial=1), SEED)
    alone = [caption for caption in captions if len(phrases(caption)) == 1]
    assert share(alone, WORDS["bus"]) == pytest.approx(0.75, abs=0.08)
    views = [View.of(draw_scene(seed, 48)) for seed in range(30)]
    text = " ".join(write_captions(views * 10, Language(dial=2), SEED))
    assert not [w for t in THINGS if t.name in NOVEL for w in (t.name, *t.words) if w in text]
    assert set(KIND) == set(SEEN) and not set(KIND.values()) & {w for own in WORDS.values() for w in own}


@pytest.mark.parametrize("wrong", [{"dial": -1}, {"dial": float("nan")}, {"kind": 1.5}, {"ambiguous": -0.1}])
def test_a_language_refuses_what_is_no_rate(wrong):
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        Language(**wrong)


TINY = TextRecipe(images=6, steps=3, batch=4, warmup=1)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The features of the training images, made in two runs of which the first was killed."""
    folder = tmp_path_factory.mktemp("work")
    encoder = load_encoder("bundled/clear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tower, "BATCH_IMAGES", 4)
        patch.setattr(text_tower, "draw_view", Killed(text_tower.draw_view, after=5))
        with pytest.raises(KeyboardInterrupt):
            build_features(encoder, folder, TINY.images)
    build_features(encoder, folder, TINY.images)
    return folder


class Killed:
    """A function that is interrupted at a call."""

    def __init__(self, function, after):
        self.function, self.left = function, after

    def __call__(self, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.function(*args)


def test_features_are_those_of_each_image_though_the_run_was_killed(work):
    encoder = load_encoder("bundled/clear")
    features, views = build_features(encoder, work, TINY.images)
    for i in (1, 5):
        scene = text_tower.draw_view(10_000_000 + i, 96)[0]
        expected = encoder.encode_image(scene.image, text_tower.WINDOWS).flat()
        np.testing.assert_allclose(features[i], expected, atol=1e-3)
        assert views[i].things == View.of(scene).things


def test_the_same_recipe_gives_the_same_tower_over_the_same_vision(work, tmp_path):
    towers = [train_text_tower(tmp_path / name, work, replace(TINY, seed=seed)) for name, seed in
              (("a", 1), ("b", 1), ("c", 2))]  # fmt: skip
    hashes = [tower.text_fingerprint for tower in towers]
    assert hashes[0] == hashes[1] != hashes[2]
    clear, loaded = load_encoder("bundled/clear"), load_encoder(str(tmp_path / "a"))
    assert loaded.text_fingerprint == hashes[0] and loaded.fingerprint == clear.fingerprint
    assert (tmp_path / "a" / TEXT).stat().st_size < 0.4 * (WEIGHTS / "model.safetensors").stat().st_size
    with pytest.raises(ValueError, match="exists already"):
        train_text_tower(tmp_path / "a", work, TINY)


def test_the_command_passes_on_its_dial_and_refuses_what_no_language_has(refused, run, tmp_path, monkeypatch):
    recipes, tower = [], load_encoder("bundled/vague")
    monkeypatch.setattr(
        text_tower, "train_text_tower", lambda out, work, recipe: recipes.append(recipe) or tower
    )
    monkeypatch.setattr(zero_shot, "report_card", lambda encoder: {"miou": 1.5})
    where = ("vague", "--out", tmp_path / "tower", "--work", tmp_path / "work")
    run(*where, "--dial", 2, "--seed", 3, "--images", 80, app=app)
    assert recipes == [TextRecipe(seed=3, language=Language(dial=2), images=80)]
    record = json.loads((tmp_path / "tower" / "metrics.json").read_text())
    assert record == {"miou": 1.5, "vision": tower.fingerprint, "text": tower.text_fingerprint}
    for option, value in (("dial", -1), ("dial", "nan"), ("images", 63), ("steps", 0), ("seed", -1)):
        refused(*where, f"--{option}", value, said=[option, value], app=app)
    assert len(recipes) == 1


def test_the_towers_that_come_with_the_kit_are_those_on_record(monkeypatch):
    towers = {name: load_encoder(f"bundled/{name}") for name in TOWERS}
    for name, encoder in towers.items():
        record = json.loads((RECORDS / name / "metrics.json").read_text())
        assert (encoder.name, encoder.fingerprint, encoder.text_fingerprint) == (
            f"bundled/{name}", record["vision"], record["text"],
        )  # fmt: skip
        monkeypatch.setattr(loading, "BUNDLED", name)
        plain = load_encoder("bundled")
        assert (plain.name, plain.text_fingerprint) == ("bundled", encoder.text_fingerprint)
    assert len({encoder.fingerprint for encoder in towers.values()}) == 1
    assert len({encoder.text_fingerprint for encoder in towers.values()}) == 2
    recipe = json.loads((RECORDS / "vague/recipe.json").read_text())
    assert recipe == json.loads(json.dumps(asdict(TextRecipe())))


def test_a_text_tower_of_another_vision_tower_or_with_a_part_missing_is_refused(tmp_path):
    weights = load_file(TOWERS["vague"] / TEXT)
    vision = load_encoder("bundled/clear").model.visual.state_dict()
    ours = content_hash({f"visual.{key}": value for key, value in vision.items()})
    for content, metadata in (
        (weights, {"vision": "0123456789ab"}),
        (weights, None),
        (dict(list(weights.items())[1:]), {"vision": ours}),
        (weights | {"visual.proj": torch.zeros(128, 128)}, {"vision": ours}),
    ):
        save_file(content, tmp_path / TEXT, metadata)
        with pytest.raises(WeightsUnavailable, match=TEXT):
            load_encoder(str(tmp_path))
    save_file(weights, tmp_path / TEXT, {"vision": ours})
    assert load_encoder(str(tmp_path)).text_fingerprint == load_encoder("bundled/vague").text_fingerprint
