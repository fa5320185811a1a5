"""The protocol: against a slow twin, what every method is shown, missing support, workers, whole files."""

import copy
import json
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from scipy import stats
from test_memory import same_content

from data_scripts.scenes import SceneDataset
from rose_kit import evaluation
from rose_kit.adapter import RNS, OfflinePixels, Supervised
from rose_kit.data import Sample, sample_support
from rose_kit.encoder import NoTextTower, Windows, load_encoder
from rose_kit.evaluation import (
    CachedDataset,
    CachedEncoder,
    MissingSupport,
    SupportExamples,
    add_dataset,
    count_pixels,
    encode_query,
    evaluate,
    expand_grid,
    relabel,
    run_grid,
    summarise,
    table,
    write_json,
)
from rose_kit.fusion import KnnClip, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.model import ROSE, RoseMethod, methods
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary, unit

PATCH = 4
COLOURS = {"sky": (0, 0, 255), "grass": (0, 200, 0), "bus": (255, 0, 0), "kite": (200, 0, 200)}
IDS = {3: "sky", 5: "grass", 9: "bus", 200: "kite"}
NAME_TO_ID = {name: i for i, name in IDS.items()}
pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")


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


@dataclass
class Foreign(Nearest):
    fingerprint: str = "another"


@dataclass
class Gridded(Nearest):
    needs_grid = True


def run(methods=None, support=None, query=None, encoder=None, **options):
    options = {"shots": 2, "seeds": [1], "progress": False} | options
    return evaluate(
        support or Blocks(12),
        query or Blocks(6, first=100),
        encoder or ColourEncoder(),
        methods or {"nearest": Nearest()},
        **options,
    )


# --- against a twin ---------------------------------------------------------------------------------------


def patch_labels(sample, names, hidden, patch):
    """The most frequent class of each patch, by counting pixels one by one; -1: none."""
    labels = []
    for top in range(0, sample.mask.shape[0], patch):
        for left in range(0, sample.mask.shape[1], patch):
            pixels = sample.mask[top : top + patch, left : left + patch].ravel().tolist()
            found = [sample.classes[v] for v in pixels if v != 255 and sample.classes[v] in names]
            most = max(names, key=found.count)  # the first of equals
            labels.append(names.index(most) if most in found and most not in hidden else -1)
    return np.array(labels)


def slow_twin(support, query, encoder, chosen, shots, seeds, missing, query_windows):
    """(method, shots, seed) -> IoU per class and mean, one method and one draw at a time."""
    vocabulary, found = name_vocabulary(query.class_names, encoder), {}
    names = list(vocabulary.names)
    for name, method in chosen.items():
        for b in shots:
            for seed in seeds:
                no_visual, no_text = missing.draw(names, seed)
                left = vocabulary.without_text(no_text)
                memory, examples = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint), []
                full = getattr(method, "upper_bound", False)
                draw = sample_support(support, b, seed, classes=names)
                for i in draw:
                    s = support[i]
                    kept = {v: c for v, c in s.classes.items() if c not in no_visual and c in names}
                    memory.add(s.image_id, encoder.encode_image(s.image), s.mask, kept)
                hidden = () if full else no_visual
                for i in range(len(support)) if full else draw:
                    s = support[i]
                    labels = patch_labels(s, names, hidden, encoder.patch_size)
                    examples.append((encoder.encode_image(s.image), labels, s.image_id))
                fitted = copy.deepcopy(method).fit(memory, left, examples)
                segmenter = Segmenter(encoder, memory, fitted, windows=query_windows)
                tally = {c: [0, 0] for c in names}  # intersection, union
                for s in map(query.__getitem__, range(len(query))):
                    answer = segmenter.segment(s.image, left).labels.ravel().tolist()
                    for value, a in zip(s.mask.ravel().tolist(), answer, strict=True):
                        if value != 255:
                            for c in {s.classes[value], names[a]}:
                                tally[c][0] += s.classes[value] == names[a]
                                tally[c][1] += 1
                iou = {c: 100 * i / u if u else None for c, (i, u) in tally.items()}
                found[name, b, seed] = iou, np.mean([v for v in iou.values() if v is not None])
    return found


def test_evaluate_is_its_slow_twin():
    encoder, missing = load_encoder("bundled"), MissingSupport(visual=0.3, text=0.3)
    support, query = SceneDataset(8, first=1_000, size=64), SceneDataset(2, first=2_000, size=64)
    chosen = {name: methods.make(name) for name in ("zero-shot", "knn-clip", "freeda", "offline-pixels")}
    chosen |= {"rns": RNS(), "supervised": Supervised()}
    windows = Windows(crops=(32,), stride=16)
    options = {"shots": (1, 2), "seeds": (1, 5), "missing": missing, "query_windows": windows}
    rows = evaluate(support, query, encoder, chosen, **options, progress=False)
    twin = slow_twin(support, query, encoder, chosen, **options)
    assert [(r["method"], r["shots"], r["seed"]) for r in rows] == [
        (name, b, s) for b in (1, 2) for s in (1, 5) for name in chosen
    ]
    for row in rows:
        per_class, mean = twin[row["method"], row["shots"], row["seed"]]
        assert row["per_class_iou"] == pytest.approx(per_class, abs=1e-9), row["method"]
        assert row["miou"] == pytest.approx(mean, abs=1e-9)
    assert len({row["miou"] for row in rows}) > 8  # methods, shots and seeds do make a difference


def test_images_are_encoded_once_with_windows_of_their_own_and_again_beyond_the_budget(monkeypatch):
    options = {"support_windows": "fine", "query_windows": "coarse", "seeds": [1, 2, 3]}
    chosen = {"a": KnnClip(), "b": OfflinePixels()}
    rows = run(chosen, encoder=(encoder := ColourEncoder()), **options)
    drawn = {i for row in rows for i in row["support_ids"]}
    assert len(encoder.encoded) == len(set(encoder.encoded)) == len(drawn) + 6
    assert [w for _, w in encoder.encoded] == ["fine"] * len(drawn) + ["coarse"] * 6
    monkeypatch.setattr(evaluation, "CachedEncoder", lambda encoder: CachedEncoder(encoder, most=0))
    assert run(chosen, encoder=(again := ColourEncoder()), **options) == rows
    assert len(again.encoded) > len(encoder.encoded)


def test_cached_data_and_encoder_are_what_they_stand_for():
    plain = ColourEncoder()
    encoder, data = CachedEncoder(plain), CachedDataset(Blocks(12))
    assert data[3] is data[3] and data.classes_of(3) == Blocks(12).classes_of(3) and len(data) == 12
    image = data[0].image
    assert encoder.encode_image(image) is encoder.encode_image(image.copy())
    assert encoder.encode_image(image) is not encoder.encode_image(image, "fine")
    flat = encoder.encode_image(np.ascontiguousarray(image.reshape(20, 16, 3)))  # the same bytes
    names = ["bus", "sky", "bus"]
    assert flat.image_size == (20, 16) and (encoder.encode_text(names) == plain.encode_text(names)).all()
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert isinstance(twin, CachedEncoder) and (twin.dim, twin.fingerprint) == (3, "colour")


def test_labels_of_examples_and_pixels_follow_names():
    mask = np.array([[3, 5, 255], [200, 7, 9]], dtype=np.uint8)
    sample = Sample("x", np.zeros((2, 3, 3), np.uint8), mask, {**IDS, 7: "tram", 255: "sky"})
    vocabulary, data = Vocabulary(["bus", "sky"]), Blocks(3)
    assert relabel(sample, vocabulary).tolist() == [[1, -1, -1], [-1, -1, 0]]
    pool = SupportExamples([1, 0], data, ColourEncoder(), None, vocabulary)
    assert len(pool) == 2 and [image for *_, image in pool] == ["blocks-1", "blocks-0"]
    for i, (_, labels, _), (_, fewer, _) in zip((1, 0), pool, replace(pool, hidden=["sky"]), strict=True):
        np.testing.assert_array_equal(labels, relabel(data[i], vocabulary)[1::PATCH, 1::PATCH].ravel())
        np.testing.assert_array_equal(fewer, np.where(labels == 1, -1, labels))


def test_counts_of_images_by_hand():
    encoder, vocabulary = ColourEncoder(), Vocabulary.encode(list(IDS.values()), ColourEncoder())
    images = [encode_query(sample, vocabulary, encoder) for sample in Blocks(2)]
    counts = count_pixels(ZeroShot(), None, vocabulary, images)
    truth = np.concatenate([target.ravel() for _, target in images])
    assert counts.sum(1).tolist() == np.bincount(truth[truth >= 0], minlength=4).tolist()
    assert np.trace(counts) > 0.9 * counts.sum()


def test_a_class_of_several_texts_regions_and_a_limit():
    row = run({"zero-shot": ZeroShot()}, classes=["grass|bus", "sky"])[0]
    assert row["per_class_iou"] == {"grass": 100, "sky": 100}  # buses are ignored, whatever they are called
    whole = run(regions=lambda image: np.zeros(image.shape[:2], dtype=int), limit=1, seeds=[3])[0]
    assert sorted(v or 0 for v in whole["per_class_iou"].values())[:3] == [0, 0, 0]  # one answer for all
    assert run(limit=3)[0]["query_ids"] == ["blocks-100", "blocks-102", "blocks-104"]
    assert len(run(limit=99)[0]["query_ids"]) == 6


BAD = [
    ({"query": Blocks(4, first=8)}, "blocks-10"),
    ({"classes": ["zebra"]}, "zebra"),
    ({"classes": []}, r"\[\]"),
    ({"classes": ["kite"]}, "kite"),
    ({"seeds": []}, r"seeds.* \[\]"),
    ({"seeds": [1, 1]}, r"seeds.* \[1, 1\]"),
    ({"shots": (2, 2)}, r"shots.* \[2, 2\]"),
    ({"shots": 0}, "0"),
    ({"limit": 0}, "0"),
    ({"methods": {"f": Foreign()}}, "f .*'colour'"),
    ({"missing": MissingSupport(both=1)}, "both=1"),
    ({"encoder": ColourEncoder(text=False), "methods": {"z": ZeroShot()}}, "z .*'colour'"),
]


@pytest.mark.parametrize(("options", "value"), BAD)
def test_bad_requests_are_refused_before_any_work(options, value):
    encoder = options.get("encoder", ColourEncoder())
    with pytest.raises(ValueError, match=value):
        run(**{"encoder": encoder} | options)
    assert not encoder.encoded


# --- methods that cannot take part, and those that see more ---------------------------------------------


def test_methods_that_cannot_answer_are_left_out_and_named():
    chosen = {"z": ZeroShot(), "f": Foreign(), "own": Foreign("colour"), "g": Gridded(), "knn": KnnClip()}
    rows = np.indices((16, 20))[0] // PATCH
    for options, named, left in (
        ({"encoder": ColourEncoder(text=False)}, r"z \(.*'colour'.*, f \(.*'colour'", ["own", "g", "knn"]),
        ({"missing": MissingSupport(text=1)}, r"z \(.*, f \(", ["own", "g", "knn"]),
        ({"regions": lambda image: rows}, r"f \(.*, g \(", ["z", "own", "knn"]),
    ):
        with pytest.warns(UserWarning, match=named):
            assert [row["method"] for row in run(chosen, **options)] == left


def test_rose_by_name_is_the_head_loaded_by_hand():
    encoder = load_encoder("bundled")
    data = SceneDataset(6, first=1_000, size=64), SceneDataset(2, first=2_000, size=64)
    chosen = {
        "name": methods.make("rose"),
        "hand": RoseMethod(ROSE.load("similarity", encoder)),
        "other": methods.make("rose", fusion="none"),
        "blind": methods.make("rose", use_memory=False),
    }
    rows = evaluate(*data, encoder, chosen, shots=1, seeds=[1], progress=False)
    score = {row["method"]: row["per_class_iou"] for row in rows}
    assert score["name"] == score["hand"] and len({row["miou"] for row in rows}) == 3


# --- missing support --------------------------------------------------------------------------------------

LABELS = [f"class {c}" for c in range(12)]
shares = st.floats(0, 1)


@given(visual=shares, text=shares, both=shares, seed=st.integers(0, 99))
def test_missing_support_takes_the_share_it_is_asked_for(visual, text, both, seed):
    both = min(both, 1 - max(visual, text))
    no_visual, no_text = MissingSupport(visual, text, both).draw(LABELS, seed)
    assert len(set(no_visual)) == len(no_visual) and set(no_visual) | set(no_text) <= set(LABELS)
    assert abs(len(no_visual) - 12 * (visual + both)) <= 0.5 + 1e-6
    assert abs(len(no_text) - 12 * (text + both)) <= 0.5 + 1e-6
    if visual + text + both <= 1:
        assert abs(len(set(no_visual) & set(no_text)) - 12 * both) <= 1.5  # rounding moves one at most
    assert set(no_text) == set(MissingSupport(text=min(text + both, 1)).draw(LABELS, seed)[1])


@given(small=shares, large=shares, seed=st.integers(0, 99), kind=st.sampled_from(["visual", "text", "both"]))
def test_a_smaller_share_is_part_of_a_larger_one(small, large, seed, kind):
    small, large = sorted((small, large))
    less, more = (MissingSupport(**{kind: share}).draw(LABELS, seed) for share in (small, large))
    assert set(less[0]) <= set(more[0]) and set(less[1]) <= set(more[1])


@pytest.mark.parametrize("shares", [{"visual": -0.1}, {"both": float("nan")}, {"text": 0.75, "both": 0.5}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match=str(next(iter(shares.values())))):
        MissingSupport(**shares)


def test_classes_that_lack_something_are_named_in_the_rows():
    chosen, missing = {"rns": RNS(), "zero-shot": ZeroShot()}, MissingSupport(0.25, 0.5)
    assert run(chosen, missing=MissingSupport()) == run(chosen)
    no_visual, no_text = missing.draw(list(IDS.values()), 1)
    for row in run(chosen, missing=missing):  # no image holds a kite
        assert set(row["without_visual"]) == {*no_visual, "kite"} and set(row["without_text"]) == set(no_text)
    blind = run(chosen, missing=MissingSupport(visual=1))
    assert blind[0]["per_class_iou"] == blind[1]["per_class_iou"]  # without prototypes RNS is zero-shot


# --- workers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with (
        LocalCluster(2, threads_per_worker=1, memory_limit=None, **quiet) as cluster,
        Client(cluster) as found,
    ):
        yield found


class Broken(SceneDataset):
    def __getitem__(self, i):
        if i == 2:
            raise KeyError("three")
        return super().__getitem__(i)


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_workers_give_what_the_serial_run_gives_bit_for_bit(backend, request):
    if backend == "dask":
        request.getfixturevalue("client")
    encoder, chosen = (
        load_encoder("bundled"),
        {"zero-shot": ZeroShot(), "rns": RNS(), "rose": methods.make("rose")},
    )
    support, query = SceneDataset(6, first=1_000, size=64), SceneDataset(4, first=2_000, size=64)
    options = {"shots": (1, 2), "seeds": [1, 2], "missing": MissingSupport(0.2), "progress": False}
    serial = evaluate(support, query, encoder, chosen, **options)
    memories = [SupportMemory(encoder.dim, fingerprint=encoder.fingerprint) for _ in range(2)]
    ids = [add_dataset(memories[0], support, encoder, positions=[4, 0, 2], progress=False)]
    with parallel_config(backend, n_jobs=2):
        assert evaluate(support, query, encoder, chosen, **options) == serial
        ids += [add_dataset(memories[1], support, encoder, positions=[4, 0, 2], progress=False)]
        with pytest.raises(KeyError, match="three"):
            evaluate(support, Broken(4, first=2_000, size=64), encoder, chosen, **options)
    assert len({row["miou"] for row in serial}) > 3
    assert np.array_equal(*ids) and memories[0].images == tuple(support.ids[i] for i in (4, 0, 2))
    same_content(*memories)


def test_grids_run_in_processes(folder, tmp_path):
    grid = {"methods": "knn-clip", "dataset": str(folder), "encoder": "handcrafted", "shots": [1, 2]}
    specs = expand_grid(grid | {"seeds": 1})
    one, two = (run_grid(specs, tmp_path / str(jobs), jobs=jobs)[0] for jobs in (1, 2))
    assert one.map(str).equals(two.map(str)) and len(one) == 2 * 3


def test_a_dataset_is_added_whole_or_not_at_all():
    encoder, data = ColourEncoder(), Blocks(6)
    memory = SupportMemory(3, fingerprint="colour")
    ids = add_dataset(memory, data, encoder, positions=[4, 2], classes=["sky", "bus"], progress=False)
    assert ids.tolist() == list(range(len(memory))) and memory.images == ("blocks-4", "blocks-2")
    assert set(memory.classes) == {"sky", "bus"} and memory.thumbnail(0) is not None
    before, other = memory.copy(), ColourEncoder()
    with pytest.raises(ValueError, match="blocks-2"):
        add_dataset(memory, data, encoder, positions=[5, 2], progress=False)
    same_content(memory, before)  # image 5 was not added either
    other.fingerprint = "other"
    with pytest.raises(ValueError, match="'colour'.*'other'"):
        add_dataset(memory, data, other, progress=False)
    assert not other.encoded and not len(add_dataset(memory, data, encoder, positions=[], progress=False))


# --- what is written --------------------------------------------------------------------------------------


def test_summary_and_table():
    rows = run({"nearest": Nearest(), "zero-shot": ZeroShot()}, shots=(1, 2), seeds=[1, 2, 3])
    summaries = summarise(rows)
    assert [(s["method"], s["shots"], s["seeds"]) for s in summaries] == [
        (name, b, [1, 2, 3]) for b in (1, 2) for name in ("nearest", "zero-shot")
    ]
    scores = [r["miou"] for r in rows if (r["method"], r["shots"]) == ("nearest", 1)]
    half_width = stats.t.ppf(0.975, 2) * stats.sem(scores)
    assert (summaries[0]["miou"], summaries[0]["half_width"]) == pytest.approx((np.mean(scores), half_width))
    assert len(table(rows).splitlines()) == 5 and "±" not in table(rows[:1])


def test_files_are_whole_or_untouched(tmp_path):
    rows, path = run(), tmp_path / "out.json"
    write_json(path, rows, seed=3)
    wanted = {"seed": 3, "rows": rows}
    assert json.loads(path.read_text(encoding="utf-8")) == wanted
    with pytest.raises(ValueError):
        write_json(path, [{"miou": float("nan")}])
    assert json.loads(path.read_text(encoding="utf-8")) == wanted
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
