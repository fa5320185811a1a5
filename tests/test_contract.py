"""The contract: the kit's own methods and encoders keep it, and each of its guards is seen to fire.

Broken methods are changes of the template in notebooks/plugins, which every plugin begins with; broken
encoders are a small encoder with one part replaced.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_encoder_clip import byte_tokenizer, tiny_model

from data_scripts.scenes import SceneDataset
from rose_kit.contract import ENCODER_CHECKS, METHOD_CHECKS, check_encoder, check_method, check_plugin
from rose_kit.data import open_dataset
from rose_kit.encoder import HandcraftedEncoder, NoTextTower, OpenClipEncoder, load_encoder
from rose_kit.evaluation import evaluate
from rose_kit.model import FUSIONS, ROSE, methods
from rose_kit.model.training import TrainConfig, prepare, train
from rose_kit.regions import make_regions
from rose_kit.registry import datasets, encoders, load_plugin, register_fusion
from rose_kit.types import FeatureMap, Vocabulary, unit

OWN = sorted(name for name in methods if methods[name].__module__.startswith("rose_kit."))
TEMPLATE = Path(__file__).parents[1] / "notebooks" / "plugins" / "my_fusion.py"


@pytest.fixture
def mine(tmp_path):
    """A copy of the template, as a user makes it, under a name of its own."""
    path = tmp_path / "mine.py"
    path.write_text(TEMPLATE.read_text().replace('"my-fusion"', '"mine"'))
    return path


@pytest.mark.parametrize("name", OWN)
def test_the_methods_of_the_kit_keep_it(name):
    outcomes = check_method(methods[name])
    assert [o.name for o in outcomes] == [*METHOD_CHECKS] and all(o.passed for o in outcomes), outcomes


def test_the_encoders_of_the_kit_keep_it():
    tiny = OpenClipEncoder.from_model(tiny_model(), byte_tokenizer, templates=["a {}."])
    for encoder in (load_encoder("bundled"), load_encoder("handcrafted"), tiny):
        outcomes = check_encoder(lambda encoder=encoder: encoder)
        assert [o.name for o in outcomes] == [*ENCODER_CHECKS] and all(o.passed for o in outcomes), outcomes


def test_the_template_conforms(mine):
    outcomes = check_plugin(mine)["mine"]
    assert len(outcomes) == len(METHOD_CHECKS) and all(o.passed for o in outcomes), outcomes


# --- methods that do not --------------------------------------------------------------------------------

FEATURES = "x = Query.of(query).features"
ANSWER = "share * seen + (1 - share) * read"
RETURN = f"return Prediction({ANSWER})"
EVIDENCE = f"from rose_kit import Evidence; e = np.array([0])\n        return Prediction({ANSWER}, "
GUESS = "return Prediction(np.full((len(x), len(vocabulary)), 1 / len(vocabulary)))"
EXTEND = "from rose_kit.memory import Prototypes; one = Prototypes.make([0], x[:1], ['zebra'], ['z'])\n"
EXTEND += "        if 'z' not in memory.images: memory.extend(one)\n        "
BROKEN_METHODS = [  # the check that finds it, a line of the template, what it is replaced by, what is said
    ("probabilities", RETURN, f"return Prediction(2 * ({ANSWER}))", "2"),
    ("probabilities", RETURN, f"return {ANSWER}", "ndarray"),
    ("probabilities", RETURN, "return Prediction(seen[:, :2])", "(12, 2)"),
    ("probabilities", RETURN, "return Prediction(1.5 * seen - 0.5 / len(vocabulary) * np.ones(4))", "-0.1"),
    ("probabilities", FEATURES, "x = query.features", "AttributeError"),
    ("probabilities", ", *, initial_weight=None", "", "initial_weight"),
    ("probabilities", FEATURES, f"{FEATURES}; x = np.roll(x, isinstance(query, np.ndarray), 0)", "array"),
    ("probabilities", RETURN, f"return Prediction(({ANSWER})[:, ::-1].copy())", "0 of 12"),
    ("probabilities", "sure = seen", "np.linalg.inv(seen); sure = seen", "LinAlgError"),
    ("determinism", "share = sure[0]", "share = np.random.rand() * sure[0]", "two runs"),
    ("determinism", FEATURES, "self.x = x = getattr(self, 'x', Query.of(query).features)", "another image"),
    ("determinism", FEATURES, "x = globals().setdefault(len(vocabulary), Query.of(query).features)",
     "second image"),
    ("determinism", "sure = seen", f"{EXTEND}sure = seen", "changed"),
    ("missing support", FEATURES, f"{FEATURES}; v = memory.class_prototypes(vocabulary.names)\n"
     "        return Prediction(softmax(x @ v.T))", "12 of 12 rows"),
    ("missing support", "if vocabulary.has_text.any() else None", "", "no class of the vocabulary has text"),
    ("missing support", "zero_shot(x, vocabulary) if", "softmax(x @ vocabulary.text.T) if", "finite"),
    ("missing support", "            return None\n", "            raise KeyError('void')\n",
     "'void' (line 3"),
    ("missing support", "raise no_support_error(vocabulary)", GUESS, "ValueError"),
    ("open vocabulary", FEATURES, "vocabulary = self.__dict__.setdefault('first', vocabulary)\n"
     f"        {FEATURES}", "order"),
    ("open vocabulary", RETURN, f"return Prediction(({ANSWER})[:, ::1 if len(vocabulary) > 2 else -1])",
     "two of its classes"),
    ("evidence", RETURN, f"{EVIDENCE}Evidence(e, e + 99, e, e))", "[99]"),
    ("evidence", RETURN, f"{EVIDENCE}Evidence(e + 12, e, e, e))", "[12]"),
    ("evidence", RETURN, f"{EVIDENCE}Evidence(e, e, e, e + np.nan))", "not finite"),
    ("evidence", RETURN, f"return Prediction({ANSWER}, evidence=['a'])", "list"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "line", "changed", "said"), BROKEN_METHODS)
def test_broken_methods_are_caught(mine, check, line, changed, said):
    text = mine.read_text()
    assert line in text
    mine.write_text(text.replace(line, changed))
    outcome = {o.name: o for o in check_plugin(mine)["mine"]}[check]
    assert not outcome.passed and said in outcome.detail, outcome


# --- encoders that do not -------------------------------------------------------------------------------


class Colours:
    """A small encoder that keeps the contract: mean colours of patches, and of names their letters."""

    dim, patch_size, fingerprint = 4, 8, "colours"

    def encode_image(self, image, windows=None):
        return self.encode_images([image])[0]

    def encode_images(self, images, windows=None):
        return [self.mapped(self.features(image), image.shape[:2]) for image in images]

    def features(self, image):
        (h, w), p = image.shape[:2], 8
        means = image.reshape(h // p, p, w // p, p, 3).mean((1, 3)) / 255
        return unit(np.concatenate([means, np.ones((*means.shape[:2], 1))], axis=-1))

    def mapped(self, values, size):
        return FeatureMap(values, 8, size, size)

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


def of_features(change):
    return {"features": lambda self, image: change(Colours.features(self, image))}


def of_text(change):
    return {"encode_text": lambda self, names: change(Colours.encode_text(self, names))}


BROKEN_ENCODERS = [  # the check that finds it, what is said, the part that is replaced
    ("features", "ndarray", {"encode_image": Colours.features}),
    ("features", "(8, 8)", {"mapped": lambda self, values, size: FeatureMap(values, 8, size, (8, 8))}),
    ("features", "16", {"patch_size": 16}),
    ("features", "dim = 5", {"dim": 5}),
    ("features", "nan", of_features(lambda x: x * np.nan)),
    ("features", "from 2 to 2", of_features(lambda x: 2 * x)),
    ("repeatable", "changed the image", {"encode_image": brightened}),
    ("repeatable", "second time", {"features": drifting}),
    ("repeatable", "beside another image", {"encode_images": beside}),
    ("repeatable", "fingerprint", {"__init__": new_name}),
    ("repeatable", "None", {"fingerprint": None}),
    ("text", "3 wide", of_text(lambda x: x[:, :3])),
    ("text", "(3, 4)", of_text(lambda x: x[[0, 0, 0]])),
    ("text", "nan", of_text(lambda x: x * np.nan)),
    ("text", "from 2 to 2", of_text(lambda x: 2 * x)),
    ("text", "beside another name", of_text(lambda x: unit(x + len(x)))),
]


def test_a_small_encoder_keeps_it_with_text_or_without():
    for kind in (Colours, but(encode_text=wordless), type("Patches", (HandcraftedEncoder,), {})):
        assert all(outcome.passed for outcome in check_encoder(kind))


@pytest.mark.parametrize(("check", "said", "changes"), BROKEN_ENCODERS)
def test_broken_encoders_are_caught(check, said, changes):
    outcome = {o.name: o for o in check_encoder(but(**changes))}[check]
    assert not outcome.passed and said in outcome.detail, outcome


# --- plugins --------------------------------------------------------------------------------------------


def test_what_a_plugin_registers_is_its_own_wherever_it_was_written(mine):
    """A class of the kit under another name, twice in a row; an encoder whose own code fails."""
    mine.write_text(
        "from functools import partial\nfrom rose_kit import *\n"
        "register_method('mine')(KnnClip)\nregister_method('two')(partial(KnnClip))\n"
    )
    for _ in range(2):
        assert list(check_plugin(mine)) == ["mine", "two"]
    mine.write_text(
        "from rose_kit import *\n@register_encoder('coarse')\nclass Coarse(HandcraftedEncoder):\n"
        "    def encode_text(self, names): return {}[names[0]]\n"
    )
    [failed] = [outcome for outcome in check_plugin(mine)["coarse"] if not outcome.passed]
    assert (failed.name, failed.detail) == ("text", "KeyError: 'sky' (line 4, encode_text)")
    assert "mine" not in methods  # what the file brought before is forgotten


def test_a_fusion_of_a_plugin_trains_and_comes_back_by_its_name(tmp_path):
    path = tmp_path / "sharp.py"
    path.write_text(
        "from rose_kit import register_fusion\nfrom rose_kit.model.fusion import Fusion\n"
        "@register_fusion('sharp')\nclass Sharp(Fusion):\n"
        "    def relevance(self, z, retrieved): return 2 * super().relevance(z, retrieved)\n"
    )
    assert load_plugin(path)["fusion"] == ["sharp"]
    encoder, scenes = load_encoder("bundled"), SceneDataset(4, first=1_000, size=32)
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
    with pytest.warns(UserWarning, match="'none'"):
        register_fusion("none")(type(model.fusion))


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
ANNOUNCED = {"encoder": "coarse=Coarse", "method": "vote=Vote", "region": "halves=halves",
             "dataset": "tiny=tiny", "fusion": "plain=Plain"}  # fmt: skip


@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_what_an_installed_package_announces_is_found_by_name(tmp_path, monkeypatch):
    """Encoder, method, regions, dataset and fusion; nothing was imported before."""
    (tmp_path / "announced-1.0.dist-info").mkdir()
    groups = (f"[rose_kit.{kind}s]\n{one.replace('=', '=announced:')}\n" for kind, one in ANNOUNCED.items())
    (tmp_path / "announced-1.0.dist-info" / "entry_points.txt").write_text("".join(groups))
    (tmp_path / "announced-1.0.dist-info" / "METADATA").write_text("Name: announced\nVersion: 1.0\n")
    (tmp_path / "announced.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    for registry, name in ((encoders, "coarse"), (methods, "vote"), (datasets, "tiny"), (FUSIONS, "plain")):
        assert name not in registry and name in registry.names()
    encoder, regions = load_encoder("coarse"), make_regions("halves", cut=3)
    options = {"shots": 1, "seeds": [1], "regions": regions, "progress": False}
    [row] = evaluate(*open_dataset("tiny"), encoder, {"vote": methods.make("vote", k=2)}, **options)
    assert len(row["query_ids"]) == 2 and 0 <= row["miou"] <= 100
    assert type(FUSIONS.make("plain", dim=8)).__name__ == "Plain"
    with pytest.raises(ValueError, match=re.escape("'vote'")):
        methods.find("vot")
