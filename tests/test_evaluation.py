"""The protocol: against a slow twin, what every method is shown, missing support, workers, whole files."""

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from PIL import Image
from test_memory import same_content
from test_segmenter import COLOURS, ColourEncoder, P

from data_scripts.scenes import SceneDataset
from rose_kit import evaluation
from rose_kit.adapter import RNS, OfflineLinear, OfflinePixels
from rose_kit.data import Sample, sample_support
from rose_kit.encoder import Windows, load_encoder
from rose_kit.evaluation import (
    CachedEncoder,
    MissingSupport,
    add_dataset,
    evaluate,
    write_json,
)
from rose_kit.fusion import FssDino, KnnClip, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.model import methods
from rose_kit.regions import Slic
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Prediction, Query

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
        colours = np.array([[COLOURS[name] for name in row] for row in chosen]) * 255
        image = (colours + rng.normal(0, self.noise, (4, 5, 3))).clip(0, 255).astype(np.uint8)
        mask = np.array([[NAME_TO_ID[name] for name in row] for row in chosen], dtype=np.uint8)
        mask[:, -1] = 255
        image, mask = (x.repeat(P, 0).repeat(P, 1) for x in (image, mask))
        rows, columns = np.indices(mask.shape) % P
        mask[(rows % 3 == 0) | (columns % 3 == 0)] = 255
        return Sample(self.ids[i], image, mask, IDS)

    def classes_of(self, i):
        return frozenset(IDS[v] for v in np.unique(self[i].mask) if v != 255)


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
    needs_grid: bool = False


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
    names = ("zero-shot", "knn-clip", "offline-pixels", "rns", "supervised")
    chosen = {name: methods.make(name) for name in names}
    windows = Windows(crops=(32,), stride=16)
    options = {"shots": (1, 2), "seeds": (5,), "missing": missing, "query_windows": windows}
    rows = evaluate(support, query, encoder, chosen, **options, progress=False)
    twin = slow_twin(support, query, encoder, chosen, **options)
    assert [(r["method"], r["shots"], r["seed"]) for r in rows] == [
        (name, b, 5) for b in (1, 2) for name in chosen
    ]
    for row in rows:
        per_class, mean = twin[row["method"], row["shots"], row["seed"]]
        assert row["per_class_iou"] == pytest.approx(per_class, abs=1e-9), row["method"]
        assert row["miou"] == pytest.approx(mean, abs=1e-9)
    assert len({row["miou"] for row in rows}) > 5  # methods and shots do make a difference


def test_images_are_encoded_once_with_windows_of_their_own_and_again_beyond_the_budget(monkeypatch):
    options = {"support_windows": "fine", "query_windows": "coarse", "seeds": [1, 2, 3]}
    chosen = {"a": KnnClip(), "b": OfflinePixels()}
    rows = run(chosen, encoder=(encoder := ColourEncoder()), **options)
    drawn = {i for row in rows for i in row["support_ids"]}
    assert len(encoder.encoded) == len(set(encoder.encoded)) == len(drawn) + 6
    assert [w for _, w in encoder.encoded] == ["fine"] * len(drawn) + ["coarse"] * 6
    monkeypatch.setattr(evaluation, "CachedEncoder", lambda encoder: CachedEncoder(encoder, max_bytes=0))
    assert run(chosen, encoder=(again := ColourEncoder()), **options) == rows
    assert len(again.encoded) > len(encoder.encoded)


def test_a_cached_encoder_is_what_it_stands_for():
    plain = ColourEncoder()
    encoder, image = CachedEncoder(plain), Blocks(1)[0].image
    assert encoder.encode_image(image) is encoder.encode_image(image.copy())
    assert encoder.encode_image(image) is not encoder.encode_image(image, "fine")
    flat = encoder.encode_image(np.ascontiguousarray(image.reshape(20, 16, 3)))  # the same bytes
    indexed, other = (Image.fromarray(image[..., 0], mode="P") for _ in range(2))
    indexed.putpalette([255, 0, 0] * 256)
    other.putpalette([0, 0, 255] * 256)  # the same indices, of another colour
    assert (encoder.encode_image(indexed).values != encoder.encode_image(other).values).any()
    names = ["bus", "sky", "bus"]
    assert flat.image_size == (20, 16) and (encoder.encode_text(names) == plain.encode_text(names)).all()


def test_a_class_of_several_texts_regions_and_a_limit():
    row = run({"zero-shot": ZeroShot()}, classes=["grass|bus", "sky"])[0]
    assert row["per_class_iou"] == {"grass": 100, "sky": 100}  # buses are ignored, whatever they are called
    assert run(regions="slic") == run(regions=Slic())
    whole = run(regions=lambda image: np.zeros(image.shape[:2], dtype=int), limit=1, seeds=[3])[0]
    assert sorted(v or 0 for v in whole["per_class_iou"].values())[:3] == [0, 0, 0]  # one answer for all
    assert run(limit=3)[0]["query_ids"] == ["blocks-100", "blocks-102", "blocks-104"]
    assert len(run(limit=99)[0]["query_ids"]) == 6


BAD = [
    ({"query": Blocks(4, first=8)}, "blocks-10"),
    ({"classes": ["zebra"]}, "zebra"),
    ({"classes": ["kite"]}, "kite"),
    ({"seeds": []}, r"seeds.* \[\]"),
    ({"shots": (2, 2)}, r"shots.* \[2, 2\]"),
    ({"shots": 0}, "0"),
    ({"limit": 0}, "0"),
    ({"methods": {"f": Foreign()}}, "f .*'colour'"),
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
    chosen = {"z": ZeroShot(), "f": Foreign(), "own": Foreign("colour"), "g": Foreign("colour", True)}
    rows = np.indices((16, 20))[0] // P
    for options, named, left in (
        ({"encoder": ColourEncoder(text=False)}, r"z \(.*'colour'.*, f \(.*'colour'", ["own", "g"]),
        ({"missing": MissingSupport(text=1)}, r"z \(.*, f \(", ["own", "g"]),
        ({"regions": lambda image: rows}, r"f \(.*, g \(", ["z", "own"]),
    ):
        with pytest.warns(UserWarning, match=named):
            assert [row["method"] for row in run(chosen, **options)] == left


def test_names_are_encoded_only_if_a_method_may_read_them(monkeypatch):
    encoder, calls = ColourEncoder(), []
    text = encoder.encode_text
    monkeypatch.setattr(encoder, "encode_text", lambda names: [calls.append(list(names)), text(names)][1])
    without, offline = FssDino(), OfflineLinear(strength=1.0)
    [row, other] = run({"fssdino": without, "offline": offline}, encoder=encoder)
    run({"rns": RNS()}, encoder=encoder, missing=MissingSupport(text=0.5, both=0.5))
    assert not calls and row["miou"] > 50 < other["miou"] and row["without_text"] == [*IDS.values()]
    with_text = run({"fssdino": without, "rns": RNS()}, encoder=encoder)[0]
    assert calls == [[*IDS.values()]] and with_text["per_class_iou"] == row["per_class_iou"]
    [blind] = run(
        {"fssdino": without}, encoder=encoder, missing=MissingSupport(visual=1)
    )  # as zero-shot does
    assert len(calls) == 2 and blind["miou"] > 50


# --- missing support --------------------------------------------------------------------------------------

LABELS = [f"class {c}" for c in range(12)]
shares = st.floats(0, 1)


@given(visual=shares, text=shares, both=shares, seed=st.integers(0, 99), part=shares)
def test_missing_support_takes_the_share_it_is_asked_for(visual, text, both, seed, part):
    both = min(both, 1 - max(visual, text))
    no_visual, no_text = MissingSupport(visual, text, both).draw(LABELS, seed)
    assert len(set(no_visual)) == len(no_visual) and set(no_visual) | set(no_text) <= set(LABELS)
    assert abs(len(no_visual) - 12 * (visual + both)) <= 0.5 + 1e-6
    assert abs(len(no_text) - 12 * (text + both)) <= 0.5 + 1e-6
    if visual + text + both <= 1:
        assert abs(len(set(no_visual) & set(no_text)) - 12 * both) <= 1.5  # rounding moves one at most
    assert set(no_text) == set(MissingSupport(text=min(text + both, 1)).draw(LABELS, seed)[1])
    fewer = MissingSupport(part * visual, 0, both).draw(LABELS, seed)  # a smaller share is a part
    assert set(fewer[0]) <= set(no_visual) and set(fewer[1]) <= set(no_text)


IMPOSSIBLE = [
    ({"visual": -0.1}, "-0.1"),
    ({"both": float("nan")}, "nan"),
    ({"text": 0.75, "both": 0.5}, "1.25"),
]


@pytest.mark.parametrize(("shares", "value"), IMPOSSIBLE)
def test_impossible_shares_are_refused(shares, value):
    with pytest.raises(ValueError, match=value):
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


def test_workers_give_what_the_serial_run_gives_bit_for_bit():
    """Two processes of loky, then two workers of a Dask cluster."""
    encoder = load_encoder("bundled")
    chosen = {"zero-shot": ZeroShot(), "rns": RNS()}
    support, query = SceneDataset(6, first=1_000, size=48), SceneDataset(3, first=2_000, size=48)
    options = {"shots": 1, "seeds": [1, 2], "missing": MissingSupport(0.2), "progress": False}
    serial = evaluate(support, query, encoder, chosen, **options)
    assert len({row["miou"] for row in serial}) > 2
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    add_dataset(memory, support, encoder, positions=[4, 0], progress=False)
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(2, threads_per_worker=1, memory_limit=None, **quiet) as cluster, Client(cluster):
        for backend in ("loky", "dask"):
            with parallel_config(backend, n_jobs=2):
                assert evaluate(support, query, encoder, chosen, **options) == serial
                other = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
                add_dataset(other, support, encoder, positions=[4, 0], progress=False)
            same_content(other, memory)


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


def test_files_are_whole_or_untouched(tmp_path):
    rows, path = run(), tmp_path / "out.json"
    write_json(path, rows, seed=3)
    with pytest.raises(ValueError):
        write_json(path, [{"miou": float("nan")}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"seed": 3, "rows": rows}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
