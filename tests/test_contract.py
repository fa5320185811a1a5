"""The contract: the kit's own methods and encoders keep it, and each of its checks is seen to fail.

Broken methods are changes of the template in notebooks/plugins, which every plugin begins with.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_encoder_clip import byte_tokenizer, tiny_model

from data_scripts.scenes import SceneDataset
from rose_kit.contract import ENCODER_CHECKS, MENDS, METHOD_CHECKS, check_encoder, check_method, check_plugin
from rose_kit.data import open_dataset
from rose_kit.encoder import HandcraftedEncoder, NoTextTower, OpenClipEncoder, load_encoder
from rose_kit.evaluation import evaluate
from rose_kit.model import FUSIONS, ROSE, methods
from rose_kit.model.training import TrainConfig, prepare, train
from rose_kit.regions import make_regions
from rose_kit.registry import (
    datasets,
    encoders,
    from_plugin,
    load_plugin,
    region_makers,
    register_fusion,
)
from rose_kit.types import FeatureMap, Vocabulary, unit

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
    assert re.search(r"ms for 800 patches, [\d.]+ times kNN-CLIP's", outcomes[-1].detail)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_encoders_of_the_kit_keep_it(name):
    outcomes = check_encoder(ENCODERS[name])
    assert [o.name for o in outcomes] == [*ENCODER_CHECKS] and all(o.passed for o in outcomes), outcomes


# --- methods that do not --------------------------------------------------------------------------------

TEMPLATE = Path(__file__).parents[1] / "notebooks" / "plugins" / "my_fusion.py"


@pytest.fixture(autouse=True)
def forget():
    """No test leaves its plugin in a registry."""
    registries = (methods, encoders, FUSIONS, datasets, region_makers)
    before = [dict(registry) for registry in registries]
    yield
    for registry, held in zip(registries, before, strict=True):
        registry.clear()
        registry.update(held)


@pytest.fixture
def mine(tmp_path):
    """A copy of the template, as a user makes it, under a name of its own."""
    path = tmp_path / "mine.py"
    path.write_text(TEMPLATE.read_text().replace('"my-fusion"', '"mine"'))
    return path


def test_the_template_conforms_and_says_what_to_run(mine):
    text = TEMPLATE.read_text()
    assert "rose-kit check mine.py" in text and "--plugin mine.py" in text
    outcomes = check_plugin(mine)["mine"]
    assert len(outcomes) == len(METHOD_CHECKS) + 1 and all(o.passed for o in outcomes), outcomes


CHANGES = {  # check -> a change of the template that only this check, or it among others, finds; what it says
    "shapes and probabilities": [
        ("return Prediction(share * seen", "return Prediction(2 * share * seen", "rows add up to"),
        ("return Prediction(share * seen + (1 - share) * read)", "return share * seen + (1 - share) * read",
         "returned ndarray, not a Prediction"),
        ("return Prediction(share * seen + (1 - share) * read)", "return Prediction(seen[:, :2])",
         "shape (12, 2), not (patches, classes) = (12, 4)"),
        ("x = Query.of(query).features", "x = query.features", "AttributeError"),
        (", *, initial_weight=None", "", "no keyword initial_weight"),
        ("x = Query.of(query).features",
         "x = np.roll(Query.of(query).features, isinstance(query, np.ndarray), axis=0)",
         "answered differently"),
    ],
    "an easy picture": [
        ("return Prediction(share * seen + (1 - share) * read)",
         "return Prediction((share * seen + (1 - share) * read)[:, ::-1].copy())", "0 of 12 patches right"),
    ],
    "determinism": [
        ("share = sure[0]", "share = np.random.rand() * sure[0]", "two runs differ by up to"),
        ("        x = Query.of(query).features",
         "        self.x = x = getattr(self, 'x', Query.of(query).features)", "asked about a second picture"),
        ("        x = Query.of(query).features",
         "        x = globals().setdefault(f'first of {len(vocabulary)}', Query.of(query).features)",
         "right in a second picture"),
        ("sure = seen", "from rose_kit.memory import Prototypes\n"
         "        if 'z' not in memory.images: memory.extend(Prototypes.make([0], x[:1], ['zebra'], ['z']))\n"
         "        sure = seen", "other than before"),
    ],
    "a class without support": [
        ("x = Query.of(query).features",
         "v = memory.class_prototypes(vocabulary.names)\n"
         "        return Prediction(softmax(Query.of(query).features @ v.T))",
         "NaN or infinite"),
    ],
    "a class without text": [
        ("if vocabulary.has_text.any() else None", "", "no class of the vocabulary has text"),
        ("zero_shot(x, vocabulary) if", "softmax(x @ vocabulary.text.T) if", "NaN or infinite"),
    ],
    "an empty memory": [
        ("            return None\n", "            raise KeyError('nothing')\n",
         "KeyError: 'nothing' (line 3"),
        ("raise nothing_to_go_on(vocabulary)",
         "return Prediction(np.full((len(x), len(vocabulary)), 1 / len(vocabulary)))", "it guesses"),
    ],
    "open vocabulary": [
        ("        x = Query.of(query).features",
         "        self.first = getattr(self, 'first', None) or vocabulary\n        vocabulary = self.first\n"
         "        x = Query.of(query).features", "with the classes in another order"),
    ],
    "evidence": [
        ("return Prediction(share * seen + (1 - share) * read)",
         "from rose_kit import Evidence; e = np.array([0])\n"
         "        return Prediction(share * seen + (1 - share) * read, Evidence(e, e + 99, e, e))",
         "names prototypes [99]"),
        ("return Prediction(share * seen + (1 - share) * read)",
         "from rose_kit import Evidence; e = np.array([0])\n"
         "        return Prediction(share * seen + (1 - share) * read, Evidence(e + 12, e, e, e))",
         "about queries 12 to 12 of 12"),
        ("return Prediction(share * seen + (1 - share) * read)",
         "from rose_kit import Evidence; e = np.array([0])\n"
         "        return Prediction(share * seen + (1 - share) * read, Evidence(e, e, e, e + np.nan))",
         "not finite"),
        ("return Prediction(share * seen + (1 - share) * read)",
         "return Prediction(share * seen + (1 - share) * read, evidence=['a'])", "evidence is list"),
    ],
}  # fmt: skip
BROKEN_METHODS = [(check, *change) for check, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize(
    ("check", "old", "new", "said"), BROKEN_METHODS, ids=[f"{b[0]}: {b[3][:20]}" for b in BROKEN_METHODS]
)
def test_broken_methods_are_caught_and_told_how_to_mend(mine, check, old, new, said):
    text = mine.read_text()
    assert old in text
    mine.write_text(text.replace(old, new))
    found = {o.name: o for o in check_plugin(mine)["mine"]}
    assert not found[check].passed and "speed" not in found
    raised = re.match(r"\w+Error: ", found[check].detail)  # by the user's own code: a mend would be a guess
    assert (f"To mend it: {MENDS[check]}." in found[check].detail) == (raised is None)
    assert said in found[check].detail, found[check].detail


def test_an_error_names_the_line_of_the_plugin_not_of_a_library(mine):
    text = mine.read_text().replace("sure = seen", "np.linalg.inv(seen); sure = seen")
    mine.write_text(text)
    line = text[: text.index("np.linalg.inv")].count("\n") + 1
    told = {o.name: o.detail for o in check_plugin(mine)["mine"]}["an easy picture"]
    assert told.startswith("LinAlgError: ") and told.endswith(f" (line {line}, predict)")


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
    assert not found[check].passed and said in found[check].detail
    assert found[check].detail.endswith(f"To mend it: {MENDS[check]}.")


def test_an_encoder_in_a_plugin_is_checked_and_an_error_of_its_code_is_placed(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from rose_kit import HandcraftedEncoder, register_encoder\n"
        "@register_encoder('mine')\n"
        "class Mine(HandcraftedEncoder):\n"
        "    def encode_text(self, names): return super().encode_text(names)\n"
    )
    assert [o.passed for o in check_plugin(plugin)["mine"]] == [True] * len(ENCODER_CHECKS)
    plugin.write_text(plugin.read_text().replace("super().encode_text(names)", "{}[names[0]]"))
    [found] = [outcome for outcome in check_plugin(plugin)["mine"] if not outcome.passed]
    assert (found.name, found.detail) == ("text", "KeyError: 'sky' (line 4, encode_text)")


# --- plugins --------------------------------------------------------------------------------------------


def test_what_a_plugin_registers_is_its_own_wherever_it_was_written(mine):
    """A class of the kit under another name; a class of another file; twice in a row."""
    mine.write_text(
        "from functools import partial\nfrom rose_kit import register_method\n"
        "from rose_kit.fusion import KnnClip\n"
        "register_method('mine')(KnnClip)\nregister_method('two')(partial(KnnClip))\n"
    )
    for _ in range(2):
        assert list(check_plugin(mine)) == ["mine", "two"]
    assert from_plugin(methods, "mine") and not from_plugin(methods, "knn-clip")
    mine.write_text("from rose_kit import KnnClip, register_method\nregister_method('two')(KnnClip)\n")
    assert load_plugin(mine)["method"] == ["two"] and "mine" not in methods  # what it brought is forgotten


def test_a_file_that_is_no_plugin_is_refused_with_its_line(tmp_path):
    broken = tmp_path / "broken.py"
    for text, said in (
        ("x = 1\nraise KeyError('x')\n", "line 2: KeyError: 'x'"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("import numpy\nnumpy.zeros(-1)\n", "line 2: ValueError: negative"),
    ):
        broken.write_text(text)
        with pytest.raises(ValueError, match=rf"broken.py', {said}"):
            check_plugin(broken)
    with pytest.raises(ValueError, match="none.py' is not a Python file"):
        check_plugin(tmp_path / "none.py")
    broken.write_text("x = 1\n")
    assert check_plugin(broken) == {}


FUSION = """import torch
from rose_kit import register_fusion
from rose_kit.model.fusion import Fusion

@register_fusion("sharp")
class Sharp(Fusion):
    def relevance(self, z, retrieved):
        return 2 * super().relevance(z, retrieved)
"""


def test_a_fusion_of_a_plugin_trains_and_comes_back_by_its_name(tmp_path):
    path = tmp_path / "sharp.py"
    path.write_text(FUSION)
    assert load_plugin(path)["fusion"] == ["sharp"] and from_plugin(FUSIONS, "sharp")
    encoder = load_encoder("bundled")
    scenes = SceneDataset(4, first=1_000, size=32)
    vocabulary = Vocabulary.encode(scenes.class_names, encoder)
    lessons = prepare(scenes, encoder, vocabulary, progress=False)
    model, losses = train(lessons, encoder, "sharp", TrainConfig(steps=2, batch=2), progress=False)
    fresh = ROSE(model.encoder, model.retriever, "sharp").state_dict()
    assert len(losses) == 2 and np.isfinite(losses).all() and type(model.fusion).__name__ == "Sharp"
    assert any(not (value == fresh[name]).all() for name, value in model.state_dict().items())
    model.save(tmp_path / "model")
    back = ROSE.load(tmp_path / "model", encoder, model.retriever.memory)
    maps = lessons.maps[:1]
    np.testing.assert_array_equal(back.probabilities(maps, vocabulary), model.probabilities(maps, vocabulary))
    with pytest.warns(UserWarning, match="fusion 'none' is registered again"):
        register_fusion("none")(type(model.fusion))


ANNOUNCED = """[rose_kit.encoders]
coarse = announced:Coarse
[rose_kit.methods]
vote = announced:Vote
[rose_kit.regions]
halves = announced:halves
[rose_kit.datasets]
tiny = announced:tiny
[rose_kit.fusions]
plain = announced:Plain
"""
PACKAGE = """import numpy as np
from rose_kit import HandcraftedEncoder, KnnClip
from rose_kit.model.none import NoFusion
from data_scripts.scenes import support_and_query
class Coarse(HandcraftedEncoder):
    def __init__(self):
        super().__init__(16)
class Vote(KnnClip): pass
class Plain(NoFusion): pass
def halves(cut: int = 2):
    return lambda image: (np.indices(image.shape[:2])[1] > image.shape[1] // cut).astype(int)
def tiny(size: int = 48):
    return support_and_query(8, 2, size)
"""


@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_what_an_installed_package_announces_is_found_by_name(tmp_path, monkeypatch):
    """Encoder, method, regions, dataset and fusion; nothing was imported before."""
    (tmp_path / "announced-1.0.dist-info").mkdir()
    (tmp_path / "announced-1.0.dist-info" / "entry_points.txt").write_text(ANNOUNCED)
    (tmp_path / "announced-1.0.dist-info" / "METADATA").write_text("Name: announced\nVersion: 1.0\n")
    (tmp_path / "announced.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    for registry, name in ((encoders, "coarse"), (methods, "vote"), (datasets, "tiny"), (FUSIONS, "plain")):
        assert name not in registry and name in registry.names()
    encoder, regions = load_encoder("coarse"), make_regions("halves", cut=3)
    chosen = {"vote": methods.make("vote", k=2)}
    [row] = evaluate(
        *open_dataset("tiny"), encoder, chosen, shots=1, seeds=[1], regions=regions, progress=False
    )
    assert len(row["query_ids"]) == 2 and 0 <= row["miou"] <= 100
    assert type(FUSIONS.make("plain", dim=8)).__name__ == "Plain"
    with pytest.raises(ValueError, match="unknown method 'vot', did you mean 'vote'"):
        methods.find("vot")
