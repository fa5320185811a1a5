"""The widgets without a browser: driven by code, and by what the front end sends."""

import numpy as np
import pytest

from data_scripts.scenes import CLASSES, SceneDataset
from rose_kit.adapter import RNS
from rose_kit.encoder import load_encoder
from rose_kit.fusion import Freeda, KnnClip, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.model import methods as registered
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.viz.widgets import EvidenceExplorer, FusionPlayground, TeachByExample

DOG = ((91, 64), (95, 50), (108, 32), (109, 57))  # pixels in four regions of the dog


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("bundled/clear")


@pytest.fixture(scope="module")
def support(encoder):
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for s in SceneDataset(6, first=1_000_000, size=128):
        memory.add(s.image_id, encoder.encode_image(s.image), s.mask, s.classes, thumbnail=s.image)
    return memory


@pytest.fixture(scope="module")
def scene():
    return SceneDataset(1, first=2_000_004, size=128)[0]


@pytest.fixture(scope="module")
def vocabulary(encoder):
    return name_vocabulary(CLASSES, encoder)


@pytest.fixture
def segmenter(encoder, support):
    return Segmenter(encoder, support.copy(), RNS())


def stroke(widget, *points):
    """What the browser sends of a click or a drag."""
    widget.canvas._handle_custom_msg({"stroke": [list(point) for point in points]}, [])


def enter(widget, name):
    """What the browser sends when a name is typed, and Add clicked."""
    widget.name._handle_custom_msg({"text": name}, [])


def click(button):
    button._handle_button_msg(button, {"event": "click"}, [])


def assert_refused(widget, text):
    assert text in widget.status and 'role="alert"' in widget.line.value


@pytest.mark.parametrize("method", [RNS(), KnnClip(), Freeda()], ids=lambda m: type(m).__name__)
def test_weights_add_up_to_the_score_and_name_rows_of_the_memory(segmenter, scene, vocabulary, method):
    segmenter = Segmenter(segmenter.encoder, segmenter.memory, method)
    widget = EvidenceExplorer(segmenter, scene.image, vocabulary)
    evidence = widget.segmentation.evidence
    for row, column in ((3, 3), (64, 64), (127, 127)):
        explained = widget.explain(row, column)
        assert explained["region"].sum() == 64 and explained["region"][row, column]
        q = row // 8 * 16 + column // 8
        assert np.isclose(explained["score"], evidence.weight[evidence.query == q].sum(), atol=1e-4)
        parts = explained["rest"] + sum(p["weight"] for p in explained["prototypes"])
        assert np.isclose(parts, explained["score"], atol=1e-5) and len(explained["prototypes"]) <= 5
        for p in explained["prototypes"]:
            held = segmenter.memory.lookup(p["prototype_id"])
            assert (held.class_names[0], held.image_ids[0]) == (p["class"], p["image_id"])
            told = f"{p['weight']:+.3g} {p['class']} in {p['image_id']} (effect {p['effect']:+.3g})"
            assert told in widget.evidence.label
            asked = evidence.with_effects([p["prototype_id"]])
            row_of = (asked.query == q) & (asked.prototype_id == p["prototype_id"])
            assert p["effect"] == pytest.approx(asked.effect[row_of].item(), abs=1e-6)
    name, (row, column) = widget.go_to.options[-1]
    shown, widget.go_to.index = widget.evidence.png, len(widget.go_to.options) - 1
    assert widget.status.startswith(f"row {row}, column {column}: ") and widget.evidence.png != shown
    assert widget.segmentation.names[widget.segmentation.labels[row, column]] == name
    floats = EvidenceExplorer(segmenter, scene.image / 255, vocabulary)  # shown as whole levels
    assert floats.canvas.png == EvidenceExplorer(segmenter, scene.image, vocabulary).canvas.png
    with pytest.raises(ValueError, match="128"):
        widget.explain(128, 0)
    with pytest.raises(ValueError, match="ZeroShot gives no evidence"):
        EvidenceExplorer(Segmenter(segmenter.encoder, segmenter.memory, ZeroShot()), scene.image, vocabulary)


def test_names_in_the_memory_are_never_read_as_markup(encoder, scene):
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    name = "<img src=x onerror=alert(1)> $_$"
    memory.add(name, encoder.encode_image(scene.image), scene.mask * 0, {0: name}, thumbnail=scene.image)
    widget = EvidenceExplorer(Segmenter(encoder, memory, RNS()), scene.image, [name, "grass"])
    widget.explain(64, 64)
    assert "<img src=x" not in widget.line.value and "&lt;img src=x" in widget.line.value


def test_an_example_is_one_prototype_and_undo_takes_it_back(segmenter, scene):
    widget, memory = TeachByExample(segmenter, scene.image, CLASSES), segmenter.memory
    before, answer, ids = widget.segmentation, widget.answer.png, memory.ids.tolist()
    stroke(widget, *DOG)  # a drag
    stroke(widget, DOG[0], DOG[1])  # begins in a picked region, so puts back
    assert "Regions picked: 2 " in widget.status
    stroke(widget, *DOG[:2])
    mask = widget.mask
    enter(widget, " puppy ")
    assert memory.class_names[-1] == "puppy" and len(memory) == len(ids) + 1 and not widget.picked
    assert widget.vocabulary.names == (*CLASSES, "puppy") and widget.vocabulary.has_text.all()
    whole = widget.encoded.feature_map.values[mask.reshape(16, 8, 16, 8).mean((1, 3)) == 1]
    assert (whole @ memory.vectors[-1]).mean() > 0.6 and widget.answer.png != answer
    found = widget.segmentation.labels == widget.segmentation.names.index("puppy")
    assert (found & mask).sum() > 0.5 * mask.sum()
    second = TeachByExample(segmenter, scene.image, CLASSES)  # its example has an id of its own
    second.pick([(5, 60)])
    second.add_example("sky")
    assert memory.image_ids[-2:].tolist() == ["photo/1", "photo/2"]
    click(second.take_back)
    click(widget.take_back)
    assert "took back 'puppy', stored as 'photo/1'" in widget.status
    assert memory.ids.tolist() == ids and np.array_equal(widget.mask, mask) and widget.answer.png == answer
    assert np.array_equal(widget.segmentation.labels, before.labels)
    assert widget.names == tuple(CLASSES)


def test_what_cannot_be_answered_leaves_nothing(segmenter, scene, monkeypatch):
    with pytest.raises(ValueError, match="'dog'"):
        TeachByExample(segmenter, scene.image, "dog")
    widget, memory = TeachByExample(segmenter, scene.image, CLASSES), segmenter.memory
    click(widget.take_back)
    assert_refused(widget, "nothing")
    enter(widget, "")
    assert_refused(widget, "empty")
    stroke(widget, DOG[0])
    enter(widget, "dog|puppy")
    assert_refused(widget, "'dog|puppy'")
    before = memory.ids.tolist(), widget.names, set(widget.picked), widget.segmentation

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(segmenter, "segment", interrupt)
        widget.add_example("puppy")
    assert (memory.ids.tolist(), widget.names, widget.picked, widget.segmentation) == before
    with pytest.raises(ValueError, match="undo"):
        widget.undo()


def test_sliders_start_where_the_methods_do_and_reach_them(segmenter, scene, vocabulary):
    methods = {"knn-clip": KnnClip(), "freeda": Freeda(), "rns": RNS()}
    widget = FusionPlayground(segmenter, scene.image, vocabulary, scene.mask, methods)
    for name, method in methods.items():
        widget.choice.value = name
        expected = Segmenter(segmenter.encoder, segmenter.memory, method).segment(widget.encoded, vocabulary)
        start = widget.segmentation.scores
        assert np.allclose(start, expected.scores, atol=1e-4) and "mIoU" in widget.status, name
        assert widget.box.children == tuple(widget.sliders[name].values())
        for option, slider in widget.sliders[name].items():
            default, slider.value = slider.value, slider.value / 4 or 0.5
            assert default == getattr(method, option) and f"{option} {slider.value:.3g}" in widget.status
            assert not np.allclose(widget.segmentation.scores, start, atol=1e-3), (name, option)
            slider.value = default
    ignored = FusionPlayground(segmenter, scene.image, vocabulary, np.full_like(scene.mask, 255))
    assert "none, as every pixel is ignored" in ignored.status
    knn = FusionPlayground(segmenter, scene.image, vocabulary)
    assert knn.status.startswith("knn-clip, weight 0.8, k 64, ")
    assert list(knn.sliders["knn-clip"]) == ["weight", "k", "temperature", "scale", "threshold"]


def test_any_registered_method_is_played_with_one_of_a_plugin_too(segmenter, scene, vocabulary, monkeypatch):
    class Mine:
        predict = KnnClip().predict

    monkeypatch.setitem(registered, "mine", Mine)
    names = ["zero-shot", "fssdino", "offline-linear", "mine"]
    widget = FusionPlayground(segmenter, scene.image, vocabulary, methods=names)
    for name in names:
        widget.choice.value = name
        assert widget.status.startswith(name) and "rk-error" not in widget.line.value
    assert not widget.sliders["mine"] and "clusters" in widget.sliders["fssdino"]
    with pytest.raises(ValueError, match="'rsn', did you mean 'rns'"):
        FusionPlayground(segmenter, scene.image, vocabulary, methods=["rsn"])
