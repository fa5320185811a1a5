"""Class names: one grammar for files, options, memories and COCO; what no question can reach is refused."""

import csv
import io
import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit import cli
from rose_kit.data import DataError, FolderDataset, Sample, read_classes
from rose_kit.encoder import HandcraftedEncoder
from rose_kit.memory import SupportMemory
from rose_kit.segmenter import name_vocabulary
from rose_kit.types import Vocabulary, class_name, join_names, split_names
from rose_kit.viz.export import read_coco, write_coco, write_folder

LETTERS = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))
LETTERS |= st.sampled_from(",\"';. #éE\u0301")
NAMES = LETTERS.filter(lambda c: c != "|")
NAMES = st.text(NAMES, max_size=12).map(lambda t: unicodedata.normalize("NFC", t).strip()).filter(bool)
SEVERAL = st.lists(NAMES, min_size=1, max_size=6, unique=True)
UNREACHABLE = [
    "",
    " ",
    " sky",
    "sky\u3000",
    "a|b",
    "|",
    "a\nb",
    "a\tb",
    "a\x00",
    "a\u2028b",
    "\ud800",
    "sky\u200b",
]


@given(SEVERAL)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_any_names_come_back_from_files_options_memories_and_coco(tmp_path_factory, names):
    folder, classes = tmp_path_factory.mktemp("names"), dict(enumerate(names))
    mask = np.arange(len(names))[None].repeat(2, 0)  # (2, C)
    image = np.zeros((*mask.shape, 3), np.uint8)
    written = FolderDataset(write_folder(folder / "data", [Sample("a", image, mask, classes)]))
    assert written.classes == classes and written.classes_of(0) == set(names)
    text = (folder / "data" / "classes.txt").read_text(encoding="utf-8")
    assert [row[1] for row in csv.reader(io.StringIO(text, newline=""))] == names  # by any reader of CSV
    assert cli.name_list(join_names(names)) == split_names(", ".join(map(quoted, names))) == names
    masks, read = read_coco(write_coco(folder / "coco.json", [("a.png", mask)], classes))
    assert read == classes and np.array_equal(masks["a.png"], mask)
    memory = SupportMemory.from_prototypes(np.eye(8)[: len(names)], names, ["a"] * len(names))
    memory.save(folder / "memory")
    memory = SupportMemory.load(folder / "memory")
    vocabulary = name_vocabulary(memory.classes, HandcraftedEncoder())
    assert vocabulary.names == memory.classes == tuple(names)
    for i, name in enumerate(names):
        decomposed = unicodedata.normalize("NFD", name)
        assert memory.search(np.eye(8)[[i]], 1, classes=[decomposed]).ids.tolist() == [[i]]
        assert vocabulary.index(decomposed) == i and np.isfinite(memory.class_sums([decomposed])).all()
        assert memory.remove(class_name=decomposed) == 1


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_name_that_no_question_can_reach_is_refused_at_every_door(tmp_path, name):
    memory, mask, image = SupportMemory(8), np.zeros((1, 1), int), np.zeros((1, 1, 3), np.uint8)
    (tmp_path / "classes.txt").write_text(f"0,{quoted(name)}", encoding="utf-8", errors="surrogatepass")
    doors = [
        lambda: class_name(name),
        lambda: memory.extend(SupportMemory.from_prototypes(np.eye(8)[:1], [name], ["a"]).rows),
        lambda: Vocabulary([name]),
        lambda: Sample("a", image, mask, {0: name}),
        lambda: write_coco(tmp_path / "c.json", [("a", mask)], {0: name}),
    ]
    for door in doors:
        with pytest.raises(ValueError, match="cannot name a"):
            door()
    if name == name.strip():  # blanks around a cell are nothing in CSV
        with pytest.raises(DataError, match="classes.txt"):
            read_classes(tmp_path / "classes.txt")
    assert not len(memory) and not (tmp_path / "c.json").exists()


def test_the_texts_of_a_class_are_different_and_none_is_empty():
    encoder = HandcraftedEncoder()
    names = name_vocabulary(["background | wall|sky", "cafe\u0301"], encoder).names
    assert names == ("background", "caf\u00e9")
    wrong = {"''": (["a||b"], ["|a"], ["a|"]), "\u00e9": (["\u00e9", "e\u0301|x"],)}
    for value, names in ((value, names) for value, every in wrong.items() for names in every):
        with pytest.raises(ValueError, match=value):
            name_vocabulary(names, encoder)
    with pytest.warns(UserWarning, match="'Road', 'road'"):
        name_vocabulary(["Road", "road"], encoder)
    with pytest.raises(ValueError, match="did you mean 'Traffic light'"):
        Vocabulary(["Traffic light", "sky"]).index("traffic  LIGHT")


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ('\ufeff"0","sky"\r\n1, "road" \r\n', ["sky", "road"]),  # quotes, a mark, CRLF: Excel
        ("0,sky\r1,road\r", ["sky", "road"]),
        ("ID,name,colour\n0,sky,\n1,road,,\n\n255,void,1,2\n", ["sky", "road"]),  # a header, empty columns
        ('0,"the ""sky"""\n1,19" rack\n', ['the "sky"', '19" rack']),
        ("0,cafe\u0301\n", ["caf\u00e9"]),
        ("0,sky,128,128,128\n", "further columns"),  # CamVid
        ("0,sky, 128, 128, 128\n", "further columns"),
        ("0,sky,nature\n", "further columns"),
        ("0, sky, nature\n", "further columns"),
        ("id;name\n0;sky\n", "'id;name'"),
        ("0;sky;128\n", "'0;sky;128'"),
        ("0\tsky\n", "line 1"),
        ("64 128 64\tAnimal\n", "line 1"),
        ("sky\nroad\n", "'sky'"),
        ('0,"sky\n', "CSV"),
        ('0,"sky" x\n', "CSV"),
        ("0,a\n65536,b\n", "line 2.*65535"),
        ("\u0660,sky\n", "line 1"),  # another script's zero
        ("0,\u00e9\n1,e\u0301\n", "line 2.*twice"),
    ],
)
def test_what_other_programs_write_as_classes_is_read_right_or_refused(tmp_path, text, classes):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8", newline="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if isinstance(classes, list):
            assert list(read_classes(tmp_path / "classes.txt").values()) == classes
        else:
            with pytest.raises(DataError, match=classes):
                read_classes(tmp_path / "classes.txt")
