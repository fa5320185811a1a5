"""The widgets without a browser: the classes behind them, and the shells driven as the front end does."""

from dataclasses import replace

import numpy as np
import pytest

from data_scripts.scenes import CLASSES, SceneDataset
from rose_kit.adapter import RNS
from rose_kit.encoder import HandcraftedEncoder, load_encoder
from rose_kit.fusion import Freeda, KnnClip, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Evidence
from rose_kit.viz.widgets import (
    EvidenceExplorer,
    Explorer,
    FusionPlayground,
    Playground,
    TeachByExample,
    Teacher,
)
from rose_kit.viz.widgets.canvas import Canvas, fit, outline
from rose_kit.viz.widgets.explorer import answer_html, query_map
from rose_kit.viz.widgets.playground import RECIPES

DOG = ((91, 64), (95, 50), (108, 32), (109, 57))  # pixels in four regions of the dog


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("bundled")


@pytest.fixture(scope="module")
def support(encoder):
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for s in SceneDataset(6, first=1_000_000, size=128):
        memory.add(s.image_id, encoder.encode_image(s.image), s.mask, s.classes, thumbnail=s.image)
    return memory


@pytest.fixture
def memory(support):
    """A copy to write to."""
    copy = SupportMemory(support.dim, fingerprint=support.fingerprint)
    copy.extend(support.rows)
    return copy


@pytest.fixture(scope="module")
def scene():
    return SceneDataset(1, first=2_000_004, size=128)[0]


@pytest.fixture(scope="module")
def vocabulary(encoder):
    return name_vocabulary(CLASSES, encoder)


@pytest.fixture
def segmenter(encoder, memory):
    return Segmenter(encoder, memory, RNS())


def empty(encoder):
    return SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)


# --- the canvas -----------------------------------------------------------------------------------


def test_every_button_lies_over_the_pixel_that_it_names():
    clicked, moved = [], []
    pixels = np.zeros((96, 192, 3), np.uint8)
    canvas = Canvas(
        pixels, (50, 100), "a picture", lambda *at: clicked.append(at), lambda *at: moved.append(at)
    )
    assert canvas.cells == (4, 8) and len(canvas.buttons) == 32
    canvas.buttons[9].click()  # second row, second column
    assert clicked == [(18, 18)] and canvas.buttons[9].tooltip == "row 18, column 18" and not moved
    assert (canvas.row.value, canvas.column.value) == (18, 18)
    canvas.row.value = 49
    assert moved == [(49, 18)] and len(clicked) == 1
    assert not any(b.tabbable for b in canvas.buttons)  # hundreds of stops of the Tab key
    canvas.row.value = 500  # as a browser may send it
    assert canvas.row.value == 49


def test_pictures_are_fitted_to_the_screen_and_labels_never_mixed(scene):
    assert fit(scene.image).shape == (384, 384, 3) and fit(np.zeros((30, 60), int), 20).shape == (10, 20)
    assert set(np.unique(fit(scene.mask, 50))) <= set(np.unique(scene.mask))
    small = fit(np.full((900, 600, 3), 77, np.uint8), 90)
    assert small.shape == (90, 60, 3) and (small == 77).all()


def test_an_outline_keeps_to_the_border_of_its_region():
    grey = np.full((20, 20, 3), 128, np.uint8)
    region = np.zeros((20, 20), bool)
    region[6:14, 6:14] = True
    drawn = (outline(grey, region) != grey).any(-1)
    assert drawn[6:14, 6].all() and not drawn[9:11, 9:11].any() and not drawn[:3].any()
    corner = np.zeros((20, 20), bool)
    corner[:5, :5] = True  # closed where the picture ends
    assert (outline(grey, corner) != grey).any(-1)[0, :5].all()


# --- the evidence explorer ------------------------------------------------------------------------


@pytest.mark.parametrize("method", [RNS(), KnnClip(), Freeda()], ids=lambda m: type(m).__name__)
def test_weights_add_up_to_the_score_and_name_rows_of_the_memory(encoder, memory, scene, vocabulary, method):
    model = Explorer(Segmenter(encoder, memory, method), scene.image, vocabulary, top=3)
    evidence = model.segmentation.evidence
    for row, column in ((3, 3), (64, 64), (127, 127)):
        answer = model.ask(row, column)
        q = row // 8 * 16 + column // 8
        assert answer.region.sum() == 64 and answer.region[row, column]
        assert np.isclose(answer.score, evidence.weight[evidence.query == q].sum(), atol=1e-4)
        assert np.isclose(answer.rest + sum(e.weight for e in answer.examples), answer.score)
        assert len(answer.examples) <= 3
        for e in answer.examples:
            held = memory.lookup(e.prototype_id)
            assert (held.class_names[0], held.image_ids[0]) == (e.class_name, e.image_id)


def test_a_pixel_belongs_to_the_patch_that_covers_it(encoder):
    image = np.zeros((60, 90, 3), np.uint8)
    encoded = Segmenter(encoder, empty(encoder)).encode(image)
    ids = query_map(encoded)
    assert ids.shape == (60, 90) and ids[0, 0] == 0 and ids.max() == len(encoded.query) - 1
    assert ids[17, 33] == 17 // 8 * encoded.feature_map.grid[1] + 33 // 8


def test_regions_are_asked_as_a_whole(encoder, memory, scene, vocabulary):
    model = Explorer(Segmenter(encoder, memory, RNS(), regions="slic"), scene.image, vocabulary)
    answer = model.ask(108, 32)
    assert answer.region.sum() > 64 and answer.shown == answer.name  # no patches, so none between


def test_clicks_and_names_lead_to_the_same_answer(segmenter, scene, vocabulary):
    widget = EvidenceExplorer(segmenter, scene.image, vocabulary)
    name, at = next(iter(widget.model.classes.items()))
    assert name in widget.said and widget.model.segmentation.labels[at] == CLASSES.index(name)
    before = widget.canvas.image.value
    widget.canvas.press(*widget.canvas.centre(200))
    assert widget.canvas.image.value != before and 'alt="' in widget.panel.value
    widget.go_to.value = name
    assert (widget.canvas.row.value, widget.canvas.column.value) == at
    assert repr(widget) == f"EvidenceExplorer: {widget.said}"
    with pytest.raises(ValueError, match="no pixel shows 'zebra'; this answer has: .*grass"):
        widget.find("zebra")
    with pytest.raises(ValueError, match=r"pixel \(128, 0\) is not in the image of 128 rows"):
        widget.ask(128, 0)


def test_names_in_the_memory_are_never_read_as_markup(encoder, scene):
    memory = empty(encoder)
    name = "<img src=x onerror=alert(1)>"
    memory.add(name, encoder.encode_image(scene.image), scene.mask * 0, {0: name}, thumbnail=scene.image)
    widget = EvidenceExplorer(Segmenter(encoder, memory, RNS()), scene.image, [name, "grass"])
    widget.ask(64, 64)
    assert (
        "<img src=x" not in widget.panel.value + widget.line.value and "&lt;img src=x" in widget.panel.value
    )


@pytest.mark.parametrize(
    ("method", "said"), [(RNS(), "the memory is empty"), (ZeroShot(), "ZeroShot gives no")]
)
def test_an_explorer_without_evidence_says_why(encoder, memory, scene, vocabulary, method, said):
    held = empty(encoder) if "empty" in said else memory
    widget = EvidenceExplorer(Segmenter(encoder, held, method), scene.image, vocabulary)
    assert said in widget.said and 'role="alert"' in widget.line.value
    widget.canvas.buttons[0].click()
    assert said in widget.said


@pytest.mark.parametrize("kept", ["rows", "nothing"])
def test_evidence_may_lack_the_row_for_text_or_be_empty(segmenter, scene, vocabulary, kept):
    model = Explorer(segmenter, scene.image, vocabulary)
    held = model.segmentation.evidence.prototype_id >= 0 if kept == "rows" else slice(0, 0)
    columns = model.segmentation.evidence.columns().values()
    evidence = Evidence(*(column[held] for column in columns))
    model.segmentation = replace(model.segmentation, evidence=evidence)
    assert model.classes is model.classes  # made once: each class takes a distance transform
    for name, at in model.classes.items():
        answer = model.ask(*at)
        assert answer.shown == name
        shown, pixels = np.unique(model.segmentation.labels[answer.region], return_counts=True)
        assert answer.name == model.segmentation.names[shown[pixels.argmax()]]
        assert bool(answer.examples) == (kept == "rows") and answer_html(answer, model.memory)


# --- teach by example -----------------------------------------------------------------------------


def test_teaching_adds_one_prototype_of_the_regions_picked(segmenter, scene, vocabulary):
    model, memory = Teacher(segmenter, scene.image, vocabulary), segmenter.memory
    before, count = model.segmentation, len(memory)
    for at in DOG:
        assert model.toggle(*at)
    assert model.toggle(0, 0) and not model.toggle(0, 0)
    mask = model.mask
    model.teach(" puppy ")
    assert len(memory) == count + 1 and memory.class_names[-1] == "puppy" and not model.picked
    features = model.encoded.feature_map.values[mask.reshape(16, 8, 16, 8).mean((1, 3)) == 1]  # whole patches
    assert (features @ memory.vectors[-1]).mean() > 0.6
    found = model.segmentation.labels == model.segmentation.names.index("puppy")
    assert (found & mask).sum() > 0.5 * mask.sum()
    assert model.undo() == "add image 'photo/1'"
    assert len(segmenter.memory) == count and np.array_equal(model.mask, mask)
    assert np.array_equal(model.segmentation.labels, before.labels) and model.vocabulary is vocabulary


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_lesson_that_cannot_be_answered_leaves_nothing(segmenter, scene, vocabulary, monkeypatch, error):
    model = Teacher(segmenter, scene.image, vocabulary)
    model.toggle(*DOG[0])
    before = list(segmenter.memory.ids), model.vocabulary, set(model.picked), model.segmentation

    def fail(*_):
        raise error("no answer")

    with monkeypatch.context() as patched, pytest.raises(error, match="no answer"):
        patched.setattr(segmenter, "segment", fail)
        model.teach("puppy")
    assert (list(segmenter.memory.ids), model.vocabulary, model.picked, model.segmentation) == before
    with pytest.raises(ValueError, match="nothing to undo"):
        model.undo()
    assert "puppy" in model.teach("puppy").names


def test_lessons_never_take_the_name_of_another(segmenter, scene, vocabulary):
    for _ in range(2):
        model = Teacher(segmenter, scene.image, vocabulary)
        model.toggle(*DOG[0])
        model.teach("dog")
    assert [i for i in segmenter.memory.images if i.startswith("photo")] == ["photo/1", "photo/2"]
    segmenter.memory.remove("photo/1")  # by others: the lesson that is left can still be taken back
    assert model.undo() == "add image 'photo/2'" and "photo/2" not in segmenter.memory.images
    with pytest.raises(ValueError, match="nothing to undo"):
        model.undo()


def test_lessons_are_taken_back_one_by_one(segmenter, scene, vocabulary):
    model, states = Teacher(segmenter, scene.image, vocabulary), []
    for at in DOG[:3]:
        states.append(segmenter.memory.ids.tolist())
        model.toggle(*at)
        model.teach("dog")
    for state in reversed(states):
        model.undo()
        assert segmenter.memory.ids.tolist() == state
    with pytest.raises(ValueError, match="nothing to undo"):
        model.undo()


@pytest.mark.parametrize("text", [True, False])
def test_a_new_name_is_read_as_text_unless_told_otherwise(segmenter, scene, vocabulary, text):
    model = Teacher(segmenter, scene.image, vocabulary, text=text)
    model.toggle(*DOG[0])
    model.teach("puppy")
    assert model.vocabulary.names == (*CLASSES, "puppy")
    assert model.vocabulary.has_text.tolist() == [True] * len(CLASSES) + [text]


def test_a_memory_can_be_taught_from_nothing_without_any_text(scene):
    encoder = HandcraftedEncoder()
    widget = TeachByExample(Segmenter(encoder, empty(encoder), RNS()), scene.image)
    assert widget.model.segmentation is None and "not answered yet" in widget.said
    for name, at in (("dog", DOG[2]), ("sky", (5, 60))):
        widget.toggle(*at)
        widget.teach(name)
    assert "pixels changed" in widget.said and set(np.unique(widget.model.segmentation.labels)) == {0, 1}
    widget.undo()
    widget.undo()
    assert widget.model.segmentation is None and "nothing to answer with" in widget.said


def test_the_shell_teaches_by_clicks_and_says_what_is_wrong(segmenter, scene, vocabulary):
    widget = TeachByExample(segmenter, scene.image, vocabulary)
    answer, count = widget.answer.value, len(segmenter.memory)

    def refused(said):
        assert said in widget.said and 'role="alert"' in widget.line.value
        assert widget.answer.value == answer and len(segmenter.memory) == count

    widget.back.click()
    refused("there is nothing to undo")
    widget.add.click()
    refused("the name is empty")
    widget.name.value = "dog"
    widget.add.click()
    refused("nothing is picked: click the regions that are 'dog'")
    widget.canvas.press(*DOG[0])
    assert "1 region picked" in widget.said and 'role="status"' in widget.line.value
    widget.canvas.row.value = DOG[1][0]  # the cursor moves, the choice stays
    assert "1 region picked" in widget.said
    widget.clean.click()
    assert "0 regions picked" in widget.said
    for at in DOG:
        widget.canvas.press(*at)
    widget.add.click()
    assert "added another example of 'dog', from 4 regions" in widget.said
    assert widget.answer.value != answer and widget.name.value == ""
    widget.back.click()
    assert widget.answer.value == answer and "took back" in widget.said


def test_proposals_must_fit_the_photo(segmenter, scene, vocabulary):
    with pytest.raises(ValueError, match=r"proposals are \(4, 4\), but the image is \(128, 128\)"):
        Teacher(segmenter, scene.image, vocabulary, proposals=np.zeros((4, 4), int))


# --- the fusion playground ------------------------------------------------------------------------


def test_dials_start_where_the_methods_do(segmenter, scene, vocabulary):
    model = Playground(segmenter, scene.image, vocabulary, scene.mask)
    for name, method in {"kNN-CLIP": KnnClip(), "FREEDA": Freeda(), "RNS": RNS()}.items():
        expected = Segmenter(segmenter.encoder, segmenter.memory, method).segment(model.encoded, vocabulary)
        assert np.allclose(model.set(name).scores, expected.scores, atol=1e-4), name
    assert 0 < model.miou < 1


def test_each_dial_reaches_its_method(segmenter, scene, vocabulary):
    model = Playground(segmenter, scene.image, vocabulary)
    for name, recipe in RECIPES.items():
        start = model.set(name).scores
        for dial, value in {"k": 1, "lam": 0.2, "temperature": 0.5, "text": 0.0}.items():
            if dial in recipe.dials:
                assert not np.allclose(model.set(**{dial: value}).scores, start, atol=1e-3), (name, dial)
                model.set(**{dial: recipe.dials[dial]})
    names_alone = Segmenter(segmenter.encoder, segmenter.memory, ZeroShot()).segment(
        model.encoded, vocabulary
    )
    assert np.array_equal(model.set("kNN-CLIP", lam=0.0).labels, names_alone.labels)


@pytest.mark.parametrize(
    ("method", "dials", "said"),
    [
        ("kNN", {}, "unknown method 'kNN'; there are: kNN-CLIP, FREEDA, RNS"),
        ("FREEDA", {"k": 3}, "FREEDA has no dial 'k'; it has: lam, temperature"),
        ("RNS", {"k": 0}, "k must be a whole number from 1 to 32, got 0"),
        ("RNS", {"k": "8"}, "k must be a whole number from 1 to 32, got '8'"),
        ("RNS", {"k": 2.5}, "k must be a whole number from 1 to 32, got 2.5"),
        ("RNS", {"k": True}, "k must be a whole number from 1 to 32, got True"),
        ("RNS", {"lam": None}, "lam must be from 0.0 to 1.0, got None"),
        (["RNS"], {}, "unknown method .'RNS'.; there are"),
        (None, {"lam": float("nan")}, "lam must be from 0.0 to 1.0, got nan"),
    ],
)
def test_wrong_dials_change_nothing(segmenter, scene, vocabulary, method, dials, said):
    model = Playground(segmenter, scene.image, vocabulary)
    before = model.set()
    with pytest.raises(ValueError, match=said):
        model.set(method, **dials)
    assert model.segmentation is before and model.method == "kNN-CLIP"


def test_sliders_and_code_move_each_other(segmenter, scene, vocabulary):
    widget = FusionPlayground(segmenter, scene.image, vocabulary, scene.mask)
    mask = widget.mask.value
    widget.sliders["lam"].value = 1.0
    assert widget.mask.value != mask and "λ 1," in widget.said and "Its mIoU:" in widget.said
    widget.choice.value = "RNS"
    assert widget.sliders["k"].value == 4 and not widget.sliders["text"].disabled
    widget.set("FREEDA", lam=0.25)
    assert widget.choice.value == "FREEDA" and widget.sliders["lam"].value == 0.25
    assert widget.sliders["k"].disabled and "not used" in widget.sliders["k"].description
    widget.choice.value = "kNN-CLIP"  # each method keeps its own
    assert widget.sliders["lam"].value == 1.0


def test_a_playground_without_a_memory_says_so(encoder, scene, vocabulary):
    widget = FusionPlayground(Segmenter(encoder, empty(encoder)), scene.image, vocabulary)
    assert "the memory is empty" in widget.said and 'role="alert"' in widget.line.value
    widget.sliders["lam"].value = 0.7
    assert "the memory is empty" in widget.said
