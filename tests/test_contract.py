"""The contract: the kit's own methods and encoders keep it, and each of its checks is seen to fail.

Broken methods are those of `test_plugins`; broken encoders are here.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_encoder_clip import byte_tokenizer, tiny_model

from rose_kit.adapter import methods
from rose_kit.contract import ENCODER_CHECKS, MENDS, METHOD_CHECKS, check_encoder, check_method, check_plugin
from rose_kit.encoder import HandcraftedEncoder, NoTextTower, OpenClipEncoder, load_encoder
from rose_kit.registry import encoders
from rose_kit.types import FeatureMap, unit

OWN = sorted(name for name in methods if methods[name].__module__.startswith("rose_kit."))
ENCODERS = {
    "bundled": lambda: load_encoder("bundled"),
    "handcrafted": lambda: load_encoder("handcrafted"),
    "open_clip": lambda: OpenClipEncoder.from_model(tiny_model(), byte_tokenizer, templates=["a {}."]),
}


def test_every_check_has_a_mend_and_every_mend_a_check():
    assert METHOD_CHECKS.keys() | ENCODER_CHECKS.keys() == MENDS.keys()


@pytest.mark.parametrize("name", OWN)
def test_the_methods_of_the_kit_keep_it(name):
    outcomes = check_method(methods[name])
    assert [o.name for o in outcomes] == [*METHOD_CHECKS, "speed"] and all(o.passed for o in outcomes), (
        outcomes
    )
    assert re.search(r"ms for 800 patches, [\d.]+ times kNN-CLIP's", outcomes[-1].said)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_encoders_of_the_kit_keep_it(name):
    outcomes = check_encoder(ENCODERS[name])
    assert [o.name for o in outcomes] == [*ENCODER_CHECKS] and all(o.passed for o in outcomes), outcomes


# --- encoders that do not -------------------------------------------------------------------------------


class Colours:
    """A small encoder that keeps the contract: mean colours of patches, and of names their letters."""

    dim, patch_size, fingerprint = 4, 8, "colours"

    def encode_image(self, image, windows=None):
        return self.encode_images([image])[0]

    def encode_images(self, images, windows=None):
        return [self.mapped(self.features(image), image.shape[:2]) for image in images]

    def features(self, image):
        (h, w), p = image.shape[:2], self.patch_size
        means = image.reshape(h // p, p, w // p, p, 3).mean((1, 3)) / 255
        return unit(np.concatenate([means, np.ones((*means.shape[:2], 1))], axis=-1))

    def mapped(self, values, size):
        return FeatureMap(values, self.patch_size, size, size)

    def encode_text(self, names):
        return unit([[len(name), *name.encode()[:3]] for name in names])


def but(**changes):
    """The class with some of its parts replaced."""
    return type("Broken", (Colours,), changes)


def wordless(self, names):
    raise NoTextTower("no text")


def drifting(self, image, calls=[]):  # noqa: B006 (it is what goes wrong)
    calls.append(image)
    return unit(Colours.features(self, image) + 0.01 * len(calls))


def brightened(self, image):
    image[:] = 255
    return Colours.encode_images(self, [image])[0]


def beside(self, images, windows=None):
    maps = Colours.encode_images(self, images)
    return [replace(one, values=maps[0].values) for one in maps]


def new_name(self):
    self.fingerprint = f"colours {id(self)}"


def together(self, names):
    return unit(Colours.encode_text(self, names) + len(names))


def nan(self, image):
    return Colours.features(self, image) * np.nan


BROKEN = [  # the check that must find it, what it says, the encoder
    ("grid of patches", "returned ndarray, not a FeatureMap", {"encode_image": Colours.features}),
    ("grid of patches", "image_size is (8, 8)", {
        "mapped": lambda self, values, size: FeatureMap(values, 8, size, (8, 8))}),
    ("grid of patches", "patches of 8 px, but the encoder says 16", {
        "features": lambda self, image: Colours().features(image),
        "mapped": lambda self, values, size: FeatureMap(values, 8, size, size), "patch_size": 16}),
    ("width and length", "features are 4 wide, but the encoder says dim = 5", {"dim": 5}),
    ("width and length", "features hold NaN", {"features": nan}),
    ("width and length", "features have lengths from 2 to 2", {
        "features": lambda self, image: 2 * Colours.features(self, image)}),
    ("repeatable", "changed the image", {"encode_image": brightened}),
    ("repeatable", "differently the second time", {"features": drifting}),
    ("repeatable", "differently beside another image", {"encode_images": beside}),
    ("repeatable", "fingerprint is not one text", {"__init__": new_name}),
    ("repeatable", "fingerprint is not one text", {"fingerprint": None}),
    ("text", "encode_text of 2 names has the shape (2, 3), not (2, 4)", {
        "encode_text": lambda self, names: Colours.encode_text(self, names)[:, :3]}),
    ("text", "text features hold NaN", {
        "encode_text": lambda self, names: Colours.encode_text(self, names) * np.nan}),
    ("text", "text features have lengths from 2 to 2", {
        "encode_text": lambda self, names: 2 * Colours.encode_text(self, names)}),
    ("text", "a name is encoded differently beside another name", {"encode_text": together}),
]  # fmt: skip


def test_a_small_encoder_of_your_own_keeps_it_with_text_or_without():
    for kind in (Colours, but(encode_text=wordless), type("Patches", (HandcraftedEncoder,), {})):
        assert all(outcome.passed for outcome in check_encoder(kind))


@pytest.mark.parametrize(("check", "said", "changes"), BROKEN, ids=[f"{b[0]}: {b[1][:40]}" for b in BROKEN])
def test_broken_encoders_are_caught_and_told_how_to_mend(check, said, changes):
    found = {outcome.name: outcome for outcome in check_encoder(but(**changes))}
    assert not found[check].passed and said in found[check].said
    assert found[check].said.endswith(f"To mend it: {MENDS[check]}.")


def test_an_encoder_in_a_plugin_is_checked_and_an_error_of_its_code_is_placed(run, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from rose_kit import HandcraftedEncoder, register_encoder\n"
        "@register_encoder('mine')\n"
        "class Mine(HandcraftedEncoder):\n"
        "    def encode_text(self, names): return super().encode_text(names)\n"
    )
    try:
        told = run("check", plugin)
        assert told.splitlines()[0] == "mine" and told.count("\n  ok ") == len(ENCODER_CHECKS)
        plugin.write_text(plugin.read_text().replace("super().encode_text(names)", "{}[names[0]]"))
        [found] = [outcome for outcome in check_plugin(plugin)["mine"] if not outcome.passed]
        assert (found.name, found.said) == ("text", "KeyError: 'sky' (line 4, encode_text)")
    finally:
        encoders.pop("mine", None)
