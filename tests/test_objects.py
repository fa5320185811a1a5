"""Objects as users of Python know them: printed in a line, compared, pickled, cloned, shown in a notebook."""

import base64
import io
import pickle
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from test_segmenter import NAMES, ColourEncoder, memory_of, scene

from rose_kit import (
    RNS,
    DataError,
    FeatureMap,
    KnnClip,
    Query,
    Segmenter,
    SupportMemory,
    TorchDataset,
    Vocabulary,
    compare,
    load_encoder,
    unit,
)
from rose_kit.contract import ToyProblem
from rose_kit.model import methods
from rose_kit.viz.html import to_html
from rose_kit.viz.overlay import overlay


@pytest.fixture
def answer():
    encoder, (image, mask) = ColourEncoder(), scene()
    return Segmenter(encoder, memory_of(image, mask, encoder), KnnClip()).segment(image, NAMES)


def records():
    """Makers of one object each, and of one that differs in a value."""
    rng = np.random.default_rng(0)
    values, problem = unit(rng.normal(size=(3, 4, 8))), ToyProblem(KnnClip)
    fm = lambda x, size=(30, 40): FeatureMap(x, 4, (12, 16), size)  # noqa: E731
    predict = lambda k: KnnClip(k=k).predict(problem.image, problem.memory, problem.vocabulary)  # noqa: E731
    text = np.where(np.arange(16).reshape(2, 8) < 8, np.nan, 1)  # NaN is NaN
    return {
        "FeatureMap": (lambda: fm(values), lambda: fm(torch.from_numpy(-values))),
        "FeatureMap, tensor": (lambda: fm(torch.from_numpy(values)), lambda: fm(values, (9, 9))),
        "Vocabulary": (lambda: Vocabulary(["a", "b"], text), lambda: Vocabulary(["a", "b"], text, [0, 0])),
        "Vocabulary, 99": (lambda: Vocabulary(map(str, range(99))), lambda: Vocabulary(map(str, range(98)))),
        "Query": (lambda: Query(values[0]), lambda: Query(values[0], (2, 2))),
        "Prediction": (lambda: predict(3), lambda: predict(1)),
        "Evidence": (lambda: predict(3).evidence, lambda: predict(1).evidence),
    }


@pytest.mark.parametrize("name", records())
def test_a_record_is_printed_in_a_line_equal_to_its_like_and_comes_back_from_a_pickle(name):
    (make, other), kind = records()[name], name.partition(",")[0]
    one = make()
    assert re.fullmatch(rf"{kind}\([^\n]+\)", repr(one)) and len(repr(one)) < 300
    assert one == make() == pickle.loads(pickle.dumps(one)) and one != other() and one != 3


def test_a_segmentation_is_an_array_a_drawing_and_a_file(answer, tmp_path):
    image, _ = scene()
    assert "evidence=..." in repr(answer)  # what is costly is not made to be printed
    assert np.array_equal(np.asarray(answer), answer.labels)
    assert np.asarray(answer, np.uint8).dtype == np.uint8
    drawn = overlay(image, answer.labels, NAMES)
    for given in (None, image, image / 255, torch.from_numpy(image).permute(2, 0, 1), Image.fromarray(image)):
        assert np.array_equal(answer.overlay(given), drawn)
    answer.save(tmp_path / "a.png")
    assert np.array_equal(Image.open(tmp_path / "a.png"), answer.labels)
    assert answer == pickle.loads(pickle.dumps(answer)) != replace(answer, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="does not hold its image"):
        replace(answer, image=None).overlay()
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        answer.overlay(image[:5, :5])


def test_a_segmentation_becomes_detections_of_supervision(answer, monkeypatch):
    """What supervision's own `Detections` is given: a mask, a box, an id and a name for each class."""
    detections = lambda xyxy, mask, **more: SimpleNamespace(xyxy=xyxy, mask=mask, **more)  # noqa: E731
    stand_in = SimpleNamespace(Detections=detections, mask_to_xyxy=lambda masks: masks.any((1, 2)))
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    found = replace(answer, labels=np.where(answer.labels == 1, 0, answer.labels)).to_supervision()
    assert found.class_id.tolist() == [0, 2] and found.data["class_name"].tolist() == ["red", "blue"]
    assert found.mask.dtype == bool and (found.mask.sum(0) == 1).all()
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ValueError, match="pip install supervision"):
        answer.to_supervision()


@pytest.mark.parametrize("name", [name for name in methods if not name.startswith("rose")])
def test_scikit_learn_clones_a_method_without_what_it_learned(name):
    problem = ToyProblem(method := methods[name])
    fitted = problem.fit(method)
    assert clone(fitted) == method() and vars(clone(fitted)) == vars(method())


# --- in a notebook ----------------------------------------------------------------------------------------


def images_of(html):
    """The (H, W, 3) pixels of each image of some HTML."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def test_a_notebook_shows_drawings_legends_and_tables(answer):
    html = answer._repr_html_()
    assert len(images_of(html)) == 1 and all(f">{name}</td>" in html for name in NAMES)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", html)]
    assert sum(shares) == pytest.approx(100, abs=0.2) and shares == sorted(shares, reverse=True)
    flat = images_of(replace(answer, image=None)._repr_html_())
    assert len(flat) == 1 and not np.array_equal(flat[0], images_of(html)[0])
    evidence = answer.evidence._repr_html_()
    assert all(f"<td>{name}</td>" in evidence for name in (*NAMES, "text and the rest"))
    weights = [float(weight) for weight in re.findall(r"<td>([+-][\d.]+)</td>", evidence)]
    assert sum(weights) == pytest.approx(answer.evidence.weight.sum() / 63, abs=0.02)  # 7 x 9 patches
    assert "no prototype" in answer.evidence.top(-1)._repr_html_()
    assert to_html("<b>") == "<pre>&#x27;&lt;b&gt;&#x27;</pre>"


def test_a_notebook_shows_what_a_memory_holds_and_reads_no_name_as_markup():
    encoder, (image, mask) = ColourEncoder(), scene()
    memory, name = SupportMemory(3), "<img src=x onerror=alert(1)>"
    for i in range(3):
        stored = image if i else None
        memory.add(f"{i}", encoder.encode_image(image), mask, {0: name, 1: "green"}, thumbnail=stored)
    html = memory._repr_html_()
    assert len(images_of(html)) == 4 and ">3</td>" in html and "&lt;img src=x" in html
    shown = Segmenter(encoder, memory).segment(image, [name, "green"])
    assert not [one for one in (html, shown._repr_html_(), shown.evidence._repr_html_()) if name in one]


def test_methods_are_compared_in_one_call_on_a_board(folder):
    options = {"data": str(folder), "encoder": "handcrafted", "shots": 1, "seeds": [1, 2], "progress": False}
    board = compare([KnnClip(), KnnClip(k=3, weight=0.5), "freeda"], **options)
    assert set(board.table["method"]) == {"knn-clip", "knn-clip weight=0.5 k=3", "freeda"}
    assert set(board.table["verdict"]) > {"baseline"} and any("2 seed(s)" in note for note in board.notes)
    html = board._repr_html_()
    assert "<table" in html and "<td>freeda</td>" in html and f"<td>{folder}</td>" in html
    named = compare({"a": KnnClip(), "b": RNS()}, **options, baseline="a")
    assert set(named.table["method"]) == {"a", "b"}
    with pytest.raises(ValueError, match="two methods are the same"):
        compare([KnnClip(), "knn-clip"], **options)


# --- pairs of torch ---------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    """Images and masks as torchvision gives them: tensors, or PIL images."""

    def __init__(self, count, pil):
        self.count, self.pil = count, pil

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image, mask = scene()
        image, mask = np.roll(image, i, 1), np.roll(mask, i, 1).astype(np.uint8)
        if self.pil:
            return Image.fromarray(image), Image.fromarray(mask)
        return torch.from_numpy(image).permute(2, 0, 1) / 255, torch.from_numpy(mask)


@pytest.mark.parametrize("pil", [True, False])
def test_pairs_of_torch_are_a_dataset_for_support_and_query(pil):
    classes = dict(enumerate(NAMES))
    support, query = TorchDataset(Pairs(4, pil), classes), TorchDataset(Pairs(2, pil), classes, "query")
    sample = support[1]
    assert sample.image_id == "image-1" and np.array_equal(sample.image, np.roll(scene()[0], 1, 1))
    assert np.array_equal(sample.mask, np.roll(scene()[1], 1, 1)) and support.classes_of(2) == set(NAMES)
    board = compare(["knn-clip"], (support, query), load_encoder("handcrafted"), shots=1, progress=False)
    assert board.table["miou"].item() > 60


IMAGE, MASK = scene()


@pytest.mark.parametrize(
    ("mask", "said"), [(MASK[1:], r"\(25, 34\)"), (MASK / 1, "float64"), (MASK + 5, "holds 5")]
)
def test_a_pair_that_does_not_fit_is_refused_by_its_id(mask, said):
    with pytest.raises(DataError, match=f"image-0.*{said}"):
        TorchDataset([(IMAGE, mask)], dict(enumerate(NAMES)))[0]
