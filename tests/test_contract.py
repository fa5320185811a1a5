"""The contract: the kit's own methods and encoders keep it, and each of its guards is seen to fire.

Broken methods are changes of the template in notebooks/plugins, which every plugin begins with; broken
encoders are a small encoder with one part replaced.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_encoder_clip import byte_tokenizer, tiny_model
from test_segmenter import ColourEncoder

from data_scripts.scenes import SceneDataset
from rose_kit.contract import NAMES, ToyProblem, check_plugin, run_checks
from rose_kit.data import open_dataset
from rose_kit.encoder import OpenClipEncoder, load_encoder
from rose_kit.evaluation import evaluate, without_classes
from rose_kit.fusion import Freeda, KnnClip
from rose_kit.fusion.evidence import LeaveOneOut
from rose_kit.model import RoseMethod, methods
from rose_kit.model.training import TrainConfig, prepare, train
from rose_kit.regions import make_regions
from rose_kit.registry import datasets, encoders, load_plugin
from rose_kit.types import Vocabulary, unit

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
    make = methods[name]
    if name == "rns-published":
        make = partial(make, steps=200)  # its 700 take long
    failures = run_checks("method", make)
    assert len(failures) == 4
    if name == "rns-published":  # AdamW starts each class elsewhere, at random
        assert "order of the vocabulary" in failures.pop("open vocabulary")
    assert not any(failures.values()), failures
    problem = ToyProblem(make)  # sky: no prototype, bus: neither, cat: no text
    memory, vocabulary = problem.memory, problem.vocabulary.without_text(NAMES[1:3])
    gaps = ToyProblem(make, memory=without_classes(memory, NAMES[:2]), vocabulary=vocabulary)
    gaps.predict(gaps.fit(make), gaps.image)


# --- methods that do not --------------------------------------------------------------------------------

FEATURES = "x = Query.of(query).features"
ANSWER = "share * seen + (1 - share) * read"
RETURN = f"return Prediction({ANSWER})"
EVIDENCE = f"from rose_kit import Evidence; e = np.array([0])\n        return Prediction({ANSWER}, "
CLAIM = (  # a weight that is the whole score, and an effect, of the nearest prototype of each patch
    "from rose_kit import Evidence; s = ({answer}).astype(np.float32); n = np.arange(len(x))\n"
    "        ids = memory.search(x, 1, classes=vocabulary.names).ids[:, 0] if len(memory) else n - n - 1\n"
    "        e = Evidence(n, ids, n.astype(str), {weight}, {effect})\n"
    "        return Prediction(s, e{scores})"
)
EXACT = {"answer": ANSWER, "weight": "s.max(1)", "effect": "None", "scores": ", s"}
GUESS = "return Prediction(np.full((len(x), len(vocabulary)), 1 / len(vocabulary)))"
EXTEND = "from rose_kit.memory import Prototypes; one = Prototypes.make([0], x[:1], ['zebra'], ['z'])\n"
EXTEND += "        if 'z' not in memory.images: memory.extend(one)\n        "
BROKEN_METHODS = [  # the check that finds it, a line of the template, what it is replaced by, what is said
    ("predictions", RETURN, f"return Prediction(2 * ({ANSWER}))", "add up to 1"),
    ("predictions", RETURN, f"return {ANSWER}", "ndarray"),
    ("predictions", RETURN, "return Prediction(seen[:, :2])", "(12, 2)"),
    ("predictions", RETURN, "return Prediction(1.5 * seen - 0.5 / len(vocabulary) * np.ones(4))", "-0.1"),
    ("predictions", ", *, initial_weight=None", "", "initial_weight"),
    ("predictions", FEATURES, f"{FEATURES}; x = np.roll(x, isinstance(query, np.ndarray), 0)", "ndarray"),
    ("predictions", RETURN, f"return Prediction(({ANSWER})[:, ::-1].copy())", "0 of 12"),
    ("predictions", "share = sure[0]", "share = np.random.rand() * sure[0]", "another copy"),
    ("predictions", FEATURES, "self.x = x = getattr(self, 'x', Query.of(query).features)", "another query"),
    ("predictions", FEATURES, "x = globals().setdefault(len(vocabulary), Query.of(query).features)",
     "second image"),
    ("predictions", "sure = seen", f"{EXTEND}sure = seen", "changed"),
    ("predictions", RETURN, f"{EVIDENCE}Evidence(e, e + 99, e, e))", "[99]"),
    ("predictions", RETURN, f"{EVIDENCE}Evidence(e + 12, e, e, e))", "[12]"),
    ("predictions", RETURN, f"{EVIDENCE}Evidence(e, e, e, e + np.nan))", "not finite"),
    ("predictions", RETURN, f"return Prediction({ANSWER}, evidence=['a'])", "list"),
    ("evidence", RETURN, CLAIM.format(**EXACT | {"weight": "2 * s.max(1)"}), "add up to its winning score"),
    ("evidence", RETURN, CLAIM.format(**EXACT | {"effect": "0.1 * s.max(1)"}), "effects differ"),
    ("evidence", RETURN, CLAIM.format(**EXACT | {"effect": "s.max(1)", "scores": ""}), "no scores"),
    ("missing support", "zero_shot(x, vocabulary, self.scale)", "softmax(x @ vocabulary.text.T)", "nan"),
    ("missing support", "            return None\n", "            raise KeyError('void')\n",
     "line 3"),
    ("missing support", "raise no_support_error(vocabulary)", GUESS, "ValueError"),
    ("open vocabulary", FEATURES, "vocabulary = self.__dict__.setdefault('first', vocabulary)\n"
     f"        {FEATURES}", "(12, 2)"),
    ("open vocabulary", RETURN, f"return Prediction(np.roll({ANSWER}, vocabulary.names[0] == 'cat', 1))",
     "order"),
    ("open vocabulary", RETURN, f"return Prediction(({ANSWER})[:, ::1 if len(vocabulary) > 2 else -1])",
     "two of its classes"),
]  # fmt: skip


@pytest.mark.parametrize("scale", [1, -1, 2])
def test_effects_of_the_wrong_sign_or_size_are_caught(monkeypatch, scale):
    makes = [methods[name] for name in ("rns", "knn-clip", "freeda")]
    makes += [partial(KnnClip, threshold=0.9, scale=10.0), partial(Freeda, global_share=0.4, sigmoid=True)]
    assert not any(run_checks("method", make)["evidence"] for make in makes)
    call = LeaveOneOut.__call__
    monkeypatch.setattr(LeaveOneOut, "__call__", lambda self, ids: scale * call(self, ids))
    for make in makes:
        assert ("effects differ" in run_checks("method", make)["evidence"]) == (scale != 1)


@pytest.mark.parametrize(("check", "line", "changed", "said"), BROKEN_METHODS)
def test_broken_methods_are_caught(mine, check, line, changed, said):
    code = mine.read_text()
    assert line in code
    mine.write_text(code.replace(line, changed))
    failures = check_plugin(mine)["mine"]
    assert said in failures[check], failures


# --- encoders that do not -------------------------------------------------------------------------------


class Colours(ColourEncoder):
    """A small encoder that keeps the contract."""

    def encode_images(self, images, windows=None):
        return [self.encode_image(image) for image in images]


def maps(change):
    return {"encode_image": lambda self, image, windows=None: change(Colours().encode_image(image))}


def texts(change):
    return {"encode_text": lambda self, names: change(Colours().encode_text(names))}


def drifting(self, image, calls=[]):  # noqa: B006 (it is what goes wrong)
    calls.append(image)
    return Colours.encode_image(self, np.roll(image, len(calls)))


def brightened(self, image):
    image[:] = 255
    return Colours.encode_image(self, image)


def beside(self, images, windows=None):
    return [self.encode_image(images[0])] * len(images)


def new_name(self):
    self.text, self.encoded, self.fingerprint = True, [], f"colours {id(self)}"


BROKEN_ENCODERS = [  # the check that finds it, what is said, the part that is replaced
    ("images", "ndarray", maps(lambda made: made.values)),
    ("images", "(8, 8)", maps(lambda made: replace(made, image_size=(8, 8)))),
    ("images", "16", {"patch_size": 16}),
    ("images", "5)", {"dim": 5}),
    ("images", "length 1", maps(lambda made: replace(made, values=2 * made.values))),
    ("images", "changed the image", {"encode_image": brightened}),
    ("images", "differently", {"encode_image": drifting}),
    ("images", "differently", {"encode_images": beside}),
    ("images", "fingerprint", {"__init__": new_name}),
    ("text", "(3, 3)", texts(lambda rows: rows[[0, 0, 0]])),
    ("text", "length 1", texts(lambda rows: 2 * rows)),
    ("text", "beside another name", texts(lambda rows: unit(rows + len(rows)))),
]


def test_encoders_keep_it():
    tiny = OpenClipEncoder.from_model(tiny_model(), byte_tokenizer, templates=["a {}."])
    for encoder in (*map(load_encoder, ("bundled", "photos", "handcrafted")), tiny, Colours()):
        failures = run_checks("encoder", lambda encoder=encoder: encoder)
        assert failures == {"images": "", "text": ""}


@pytest.mark.parametrize(("check", "said", "changes"), BROKEN_ENCODERS)
def test_broken_encoders_are_caught(check, said, changes):
    failures = run_checks("encoder", type("Broken", (Colours,), changes))
    assert said in failures[check], failures


# --- plugins --------------------------------------------------------------------------------------------


def test_the_template_keeps_it():
    assert check_plugin(TEMPLATE) == {"my-fusion": dict.fromkeys(map(str, run_checks("method", KnnClip)), "")}


def test_what_a_plugin_registers_is_its_own_wherever_it_was_written(mine, monkeypatch):
    """A class of the kit under another name, twice in a row, then an encoder; nothing that it imports."""
    mine.with_name("helper.py").write_text("from rose_kit import *\nregister_method('helper')(KnnClip)\n")
    monkeypatch.syspath_prepend(mine.parent)
    mine.write_text(
        "from functools import partial\nimport helper\nfrom rose_kit import *\n"
        "register_method('mine')(KnnClip)\nregister_method('two')(partial(KnnClip))\n"
    )
    for _ in range(2):
        assert list(check_plugin(mine)) == ["mine", "two"]
    mine.write_text("from rose_kit import *\nregister_encoder('coarse')(HandcraftedEncoder)\n")
    assert list(check_plugin(mine)) == ["coarse"]
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
    model, losses = train(lessons, "sharp", TrainConfig(steps=2, batch=2), progress=False)
    assert len(losses) == 2 and np.isfinite(losses).all() and type(model.fusion).__name__ == "Sharp"
    model.save(tmp_path / "model")
    chosen = {"own": RoseMethod(model), "back": methods.make("rose", fusion=str(tmp_path / "model"))}
    options = {"shots": 1, "seeds": [1], "progress": False}
    own, back = evaluate(scenes, SceneDataset(2, first=2_000, size=32), encoder, chosen, **options)
    assert own["per_class_iou"] == back["per_class_iou"] and back["miou"] > 0


PACKAGE = """import numpy as np
from rose_kit import HandcraftedEncoder, KnnClip
from data_scripts.scenes import support_and_query
def halves(cut: int = 2):
    return lambda image: (np.indices(image.shape[:2])[1] > image.shape[1] // cut).astype(int)
def tiny(size: int = 48):
    return support_and_query(8, 2, size)
"""
ANNOUNCED = {"encoder": "coarse=HandcraftedEncoder", "method": "vote=KnnClip", "region": "halves=halves",
             "dataset": "tiny=tiny"}  # fmt: skip


@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_what_an_installed_package_announces_is_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "announced-1.0.dist-info").mkdir()
    groups = (f"[rose_kit.{kind}s]\n{one.replace('=', '=announced:')}\n" for kind, one in ANNOUNCED.items())
    (tmp_path / "announced-1.0.dist-info" / "entry_points.txt").write_text("".join(groups))
    (tmp_path / "announced-1.0.dist-info" / "METADATA").write_text("Name: announced\nVersion: 1.0\n")
    (tmp_path / "announced.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    for registry, name in ((encoders, "coarse"), (methods, "vote"), (datasets, "tiny")):
        assert name not in registry and name in registry.names()
    encoder, regions = load_encoder("coarse"), make_regions("halves", cut=3)
    options = {"shots": 1, "seeds": [1], "regions": regions, "progress": False}
    [row] = evaluate(*open_dataset("tiny"), encoder, {"vote": methods.make("vote", k=2)}, **options)
    assert len(row["query_ids"]) == 2 and 0 <= row["miou"] <= 100
