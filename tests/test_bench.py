"""The evaluation protocol, on drawn colour blocks whose right answers are known."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from rose_kit.data import Sample, default_splits
from rose_kit.encoder import NoTextTower, load_encoder
from rose_kit.evaluation import evaluate, summarise, table, write_json
from rose_kit.evaluation.runs import SupportExamples, SupportFeatures, relabel
from rose_kit.fusion import KnnClip, ZeroShot
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary, unit

PATCH = 4
COLOURS = {"sky": (0, 0, 255), "grass": (0, 200, 0), "bus": (255, 0, 0), "kite": (200, 0, 200)}
IDS = {3: "sky", 5: "grass", 9: "bus", 200: "kite"}
NAME_TO_ID = {name: i for i, name in IDS.items()}


pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds. kite")


class Blocks:
    """Images of 4 x 5 blocks, each one patch of a class's colour.

    The last column is ignored, and so are the borders of patches, where upsampling blurs the answer.
    """

    def __init__(self, count, first=0, names=("sky", "grass", "bus"), noise=20):
        self.class_names, self.noise = tuple(IDS.values()), noise
        self.first, self.names = first, names
        self.ids = [f"blocks-{first + i}" for i in range(count)]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        rng = np.random.default_rng(self.first + i)
        chosen = rng.choice(self.names, (4, 5))
        colours = np.array([[COLOURS[name] for name in row] for row in chosen])
        image = (colours + rng.normal(0, self.noise, (4, 5, 3))).clip(0, 255).astype(np.uint8)
        mask = np.array([[NAME_TO_ID[name] for name in row] for row in chosen], dtype=np.uint8)
        mask[:, -1] = 255
        image, mask = (x.repeat(PATCH, 0).repeat(PATCH, 1) for x in (image, mask))
        rows, columns = np.indices(mask.shape) % PATCH
        mask[(rows % 3 == 0) | (columns % 3 == 0)] = 255
        return Sample(self.ids[i], image, mask, IDS)

    def classes_of(self, i):
        return frozenset(IDS[v] for v in np.unique(self[i].mask) if v != 255)


class ColourEncoder:
    """A patch is its mean colour; a class name is the colour it stands for."""

    name, dim, patch_size, fingerprint = "colour", 3, PATCH, "colour"

    def __init__(self, text=True):
        self.text, self.encoded = text, []

    def encode_image(self, image, windows=None):
        h, w = image.shape[0] // PATCH, image.shape[1] // PATCH
        patches = image.reshape(h, PATCH, w, PATCH, 3).mean((1, 3)) + 1e-3
        self.encoded.append((image.tobytes(), windows))
        return FeatureMap(unit(patches), PATCH, image.shape[:2], image.shape[:2])

    def encode_text(self, names):
        if not self.text:
            raise NoTextTower(f"no text tower for {list(names)}")
        return unit([COLOURS.get(name, (1, 1, 1)) for name in names])


@dataclass
class Nearest:
    """A method without `fit`: the class of the nearest prototype, at weight one."""

    def predict(self, query, memory, vocabulary, *, initial_weight=None):
        query = Query.of(query)
        best = memory.search(query.features, 1).rows[:, 0]
        names = memory.lookup(best).class_names
        return Prediction(np.array([[float(name == n) for n in vocabulary.names] for name in names]))


def run(methods=None, support=None, query=None, encoder=None, **options):
    options = {"shots": 2, "seeds": [1], "progress": False} | options
    return evaluate(
        support or Blocks(12),
        query or Blocks(6, first=100),
        encoder or ColourEncoder(),
        methods or {"nearest": Nearest()},
        **options,
    )


def test_pure_colours_are_segmented_without_a_slip():
    rows = run({"nearest": Nearest(), "zero-shot": ZeroShot()}, Blocks(12, noise=0), seeds=[1, 2])
    assert [(r["method"], r["seed"], r["shots"]) for r in rows] == [
        ("nearest", 1, 2),
        ("zero-shot", 1, 2),
        ("nearest", 2, 2),
        ("zero-shot", 2, 2),
    ]
    for row in rows:
        assert row["miou"] == 100
        assert row["per_class_iou"] == {"sky": 100, "grass": 100, "bus": 100, "kite": None}
        assert row["query_ids"] == [f"blocks-{i}" for i in range(100, 106)]
        assert set(row["support_ids"]) <= set(Blocks(12).ids)


def test_miou_is_that_of_all_pixels_pooled():
    """Against scikit-learn on the concatenated pixels, with a method that is often wrong."""

    class Reddest:
        def predict(self, query, memory, vocabulary, *, initial_weight=None):
            return Prediction(np.eye(4)[(Query.of(query).features[:, 0] > 0.5).astype(int)])

    query = Blocks(6, first=100)
    row = run({"reddest": Reddest()}, query=query)[0]
    truth, answer = [], []
    for i in range(len(query)):
        sample = query[i]
        patches = ColourEncoder().encode_image(sample.image).values[..., 0] > 0.5
        valid = sample.mask != 255
        truth += [list(IDS).index(v) for v in sample.mask[valid]]
        answer += patches.repeat(PATCH, 0).repeat(PATCH, 1)[valid].astype(int).tolist()
    expected = 100 * jaccard_score(truth, answer, labels=[0, 1, 2], average=None)
    assert row["per_class_iou"]["kite"] is None
    assert [row["per_class_iou"][n] for n in ("sky", "grass", "bus")] == pytest.approx(expected)
    assert row["miou"] == pytest.approx(expected.mean())


def test_images_are_encoded_once_for_all_seeds_and_methods():
    encoder = ColourEncoder()
    rows = run({"a": Nearest(), "b": KnnClip()}, encoder=encoder, seeds=[1, 2, 3])
    support = {i for row in rows for i in row["support_ids"]}
    assert len(encoder.encoded) == len(set(encoder.encoded)) == len(support) + 6


def test_support_and_query_have_windows_of_their_own():
    encoder = ColourEncoder()
    rows = run(encoder=encoder, support_windows="fine", query_windows="coarse")
    windows = [w for _, w in encoder.encoded]
    assert windows == ["fine"] * len(rows[0]["support_ids"]) + ["coarse"] * 6


def test_features_that_do_not_fit_the_budget_are_encoded_again(monkeypatch):
    kept = run({"knn": KnnClip()}, seeds=[1, 2])
    monkeypatch.setattr("rose_kit.evaluation.runs.FEATURE_BUDGET", 0)
    encoder = ColourEncoder()
    assert run({"knn": KnnClip()}, encoder=encoder, seeds=[1, 2]) == kept
    assert len(encoder.encoded) > len(set(encoder.encoded))


def test_each_seed_fits_a_copy_of_the_method():
    class Counting(Nearest):
        fits = 0

        def fit(self, memory, vocabulary, support=None):
            self.fits += 1
            assert self.fits == 1
            assert len(list(support)) == len(list(support)) > 0  # may be passed over twice
            return self

    method = Counting()
    run({"counting": method}, seeds=[1, 2])
    assert method.fits == 0


def test_support_examples_carry_the_majority_label_of_each_patch():
    data, vocabulary = Blocks(3), Vocabulary(["bus", "sky"])
    features = SupportFeatures(data, ColourEncoder(), None)
    (query, labels, image_id), *_ = SupportExamples([1], features, vocabulary)
    wanted = relabel(data[1], vocabulary)[1::PATCH, 1::PATCH].ravel()
    assert image_id == "blocks-1"
    assert query.grid == (4, 5)
    np.testing.assert_array_equal(labels, wanted)
    assert set(labels) == {-1, 0, 1}


def test_relabel_maps_by_name_and_drops_the_rest():
    mask = np.array([[3, 5, 255], [200, 7, 9]], dtype=np.uint8)
    sample = Sample("x", np.zeros((2, 3, 3), np.uint8), mask, {**IDS, 7: "tram", 255: "sky"})
    assert relabel(sample, Vocabulary(["bus", "sky"])).tolist() == [[1, -1, -1], [-1, -1, 0]]


def test_a_class_may_be_chosen_with_several_texts():
    row = run({"zero-shot": ZeroShot()}, classes=["grass|bus", "sky"])[0]
    assert list(row["per_class_iou"]) == ["grass", "sky"]
    assert row["per_class_iou"]["grass"] == 100  # every bus is ignored, whatever it is called


def test_regions_answer_as_one():
    """One region over the image: everything in it gets one label."""
    rows = run(regions=lambda image: np.zeros(image.shape[:2], dtype=int), limit=1, seeds=[3])
    assert sum(value is not None for value in rows[0]["per_class_iou"].values()) >= 2
    assert sorted(v or 0 for v in rows[0]["per_class_iou"].values())[:3] == [0, 0, 0]


def test_limit_spreads_over_the_query_set():
    assert run(limit=3)[0]["query_ids"] == ["blocks-100", "blocks-102", "blocks-104"]
    assert len(run(limit=99)[0]["query_ids"]) == 6


def test_methods_that_need_text_are_left_out_without_it():
    with pytest.warns(UserWarning, match="left out: encoder 'colour' has no text tower, which zero-shot"):
        rows = run({"zero-shot": ZeroShot(), "knn": KnnClip()}, encoder=ColourEncoder(text=False))
    assert [row["method"] for row in rows] == ["knn"]
    assert rows[0]["miou"] > 90
    with pytest.raises(ValueError, match="has no text tower"):
        run({"zero-shot": ZeroShot()}, encoder=ColourEncoder(text=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": Blocks(4, first=8)}, "share 4 image ids, such as 'blocks-10'"),
        ({"classes": ["zebra"]}, "class 'zebra' is not in the query data: sky, grass, bus, kite"),
        ({"classes": []}, r"at least one name, got \[\]"),
        ({"classes": ["kite"]}, "no query image holds any of: kite"),
        ({"seeds": []}, r"seeds must be one or more, all different, got \[\]"),
        ({"seeds": [1, 1]}, r"got \[1, 1\]"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
    ],
)
def test_bad_requests_are_named_before_any_work(options, message):
    encoder = ColourEncoder()
    with pytest.raises(ValueError, match=message):
        run(encoder=encoder, **options)
    assert not encoder.encoded


def test_no_method_is_an_error():
    with pytest.raises(ValueError, match="no method to evaluate"):
        evaluate(Blocks(4), Blocks(2, first=50), ColourEncoder(), {}, shots=1, seeds=[1])


def test_summary_and_table():
    rows = run({"nearest": Nearest(), "zero-shot": ZeroShot()}, seeds=[1, 2, 3])
    summaries = summarise(rows)
    assert [(s["method"], s["shots"], s["seeds"]) for s in summaries] == [
        ("nearest", 2, [1, 2, 3]),
        ("zero-shot", 2, [1, 2, 3]),
    ]
    assert summaries[0]["miou"] == pytest.approx(np.mean([r["miou"] for r in rows[::2]]))
    assert len(table(rows).splitlines()) == 3
    assert "±" not in table(rows[:1])


def test_json_is_whole_or_untouched(tmp_path):
    rows = run()
    path = tmp_path / "out.json"
    write_json(path, rows)
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": rows}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, [{"miou": float("nan")}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": rows}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(OSError):
        write_json(tmp_path / "absent" / "out.json", rows)


def test_real_photographs_by_visual_support_alone():
    folder = Path(__file__).parents[2] / "shared" / "data" / "camvid"
    if not folder.is_dir():
        pytest.skip("the photographs of camvid are not beside the project")
    support, query = default_splits(folder)
    support = support.subset(support.ids[::40])
    rows = run({"knn-clip": KnnClip()}, support, query, load_encoder("handcrafted"), limit=2)
    assert len(rows[0]["query_ids"]) == 2
    assert rows[0]["miou"] > 15  # chance is below 5
