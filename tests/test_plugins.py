"""Bring your own fusion: the template, broken plugins caught for what is wrong, template to leaderboard."""

import re
import shutil
from pathlib import Path

import pytest

from rose_kit import cli
from rose_kit.adapter import methods
from rose_kit.contract import MENDS, METHOD_CHECKS, check_plugin
from rose_kit.evaluation.grid import expand
from rose_kit.registry import datasets, encoders, region_makers

TEMPLATE = Path(__file__).parents[1] / "notebooks" / "plugins" / "my_fusion.py"


@pytest.fixture(autouse=True)
def forget():
    """No test leaves its plugin in the registry."""
    before = dict(methods)
    yield
    methods.clear()
    methods.update(before)


@pytest.fixture
def mine(tmp_path):
    """A copy of the template, as a user makes it, under a name of its own."""
    path = tmp_path / "mine.py"
    path.write_text(TEMPLATE.read_text().replace('"my-fusion"', '"mine"'))
    return path


def test_the_template_conforms_and_says_what_to_run(run, mine):
    text = TEMPLATE.read_text()
    assert "rose-kit check mine.py" in text and "--plugin mine.py" in text
    told = run("check", mine)
    assert told.splitlines()[0] == "mine" and "FAIL" not in told
    assert told.count("\n  ok ") == len(METHOD_CHECKS) + 1  # and the speed


BODY = {  # check -> a change of the template that only this check, or it among others, finds; what it says
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
        ("sure = seen", "from rose_kit.memory import Rows; own = Rows.make([0], x[:1], ['zebra'], ['z'])\n"
         "        memory.extend(own, replace=True); sure = seen", "other than before"),
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
BROKEN = [(check, *change) for check, changes in BODY.items() for change in changes]


@pytest.mark.parametrize(
    ("check", "old", "new", "said"), BROKEN, ids=[f"{b[0]}: {b[3][:20]}" for b in BROKEN]
)
def test_broken_plugins_are_caught_and_told_how_to_mend(mine, check, old, new, said):
    text = mine.read_text()
    assert old in text
    mine.write_text(text.replace(old, new))
    found = {o.name: o for o in check_plugin(mine)["mine"]}
    assert not found[check].passed and "speed" not in found
    raised = re.match(r"\w+Error: ", found[check].said)  # by the user's own code: any mend would be a guess
    assert (f"To mend it: {MENDS[check]}." in found[check].said) == (raised is None)
    assert said in found[check].said, found[check].said


def test_an_error_names_the_line_of_the_plugin_not_of_a_library(mine):
    text = mine.read_text().replace("sure = seen", "np.linalg.inv(seen); sure = seen")
    mine.write_text(text)
    line = text[: text.index("np.linalg.inv")].count("\n") + 1
    said = {o.name: o.said for o in check_plugin(mine)["mine"]}["an easy picture"]
    assert said.startswith("LinAlgError: ") and said.endswith(f" (line {line}, predict)")


def test_what_a_plugin_registers_is_its_own_wherever_it_was_written(mine):
    """A class of the kit under another name; a class of another file; twice in a row."""
    mine.write_text(
        "from functools import partial\nfrom rose_kit import register_method\n"
        "from rose_kit.fusion import KnnClip\n"
        "register_method('mine')(KnnClip)\nregister_method('two')(partial(KnnClip))\n"
    )
    for _ in range(2):
        assert list(check_plugin(mine)) == ["mine", "two"]
    cells = expand({"method": "rns", "dataset": "scenes", "seeds": 1}, extra=["mine", "two"], plugin=mine)
    assert [cell.plugin for cell in cells] == ["", str(mine), str(mine)]


def test_the_command_fails_with_a_line_for_each_check(mine, capsys):
    mine.write_text(mine.read_text().replace("return Prediction(share", "return Prediction(2 * share"))
    assert cli.status(["check", str(mine)]) == 1
    out, err = capsys.readouterr()
    assert err == "" and re.search(
        r"^  FAIL  shapes and probabilities +rows add up to .* To mend it: ", out, re.M
    )


def test_wrong_files_are_refused(refused, tmp_path, mine):
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    refused("check", empty, said=["empty.py", "registers no method", "@register_method"])
    refused("check", tmp_path / "none.py", said=["none.py"])
    mine.write_text(mine.read_text().replace("return Prediction(share", "return Prediction(2 * share"))
    (tmp_path / "grid.yaml").write_text("{seeds: 1, dataset: scenes}")
    said = ["'mine'", "rows add up to", "rose-kit check"]
    refused("sweep", tmp_path / "grid.yaml", "--plugin", mine, said=said)


def test_from_template_to_leaderboard_in_one_command(run, tmp_path, folder):
    """Copied, renamed, one command: it stands beside the others, and no file of the package knows it."""
    mine = tmp_path / "mine.py"
    shutil.copy(TEMPLATE, mine)
    (tmp_path / "grid.yaml").write_text(
        f"{{method: knn-clip, encoder: handcrafted, seeds: 1, dataset: {folder}}}"
    )
    args = ("sweep", tmp_path / "grid.yaml", "--plugin", mine, "--out", tmp_path / "runs", "--jobs", 1)
    text = run(*args)
    assert "2 runs done" in text and re.search(r"^\| my-fusion +\| 1 +\| 3 ", text, re.M)
    assert re.search(r"^\| knn-clip .*\| baseline", text, re.M)
    mine.write_text(mine.read_text().replace("k: int = 16", "k: int = 8"))
    listed = run(*args, "--dry-run")  # kNN-CLIP does not depend on the plugin
    assert "finished  knn-clip on" in listed and "to do     my-fusion on" in listed


ANNOUNCED = """[rose_kit.encoders]
coarse = announced:Coarse
[rose_kit.methods]
vote = announced:Vote
[rose_kit.regions]
halves = announced:halves
[rose_kit.datasets]
tiny = announced:tiny
"""
PACKAGE = """import numpy as np
from rose_kit import HandcraftedEncoder, KnnClip
from data_scripts.scenes import support_and_query
class Coarse(HandcraftedEncoder):
    def __init__(self):
        super().__init__(16)
class Vote(KnnClip): pass
def halves(cut: int = 2):
    if cut < 1:
        raise ValueError(f"cut is {cut}")
    return lambda image: (np.indices(image.shape[:2])[1] > image.shape[1] // cut).astype(int)
def tiny(size: int = 48):
    return support_and_query(8, 2, size)
"""


def test_what_an_installed_package_announces_is_found_by_name(run, refused, tmp_path, monkeypatch):
    """Encoder, method, regions and dataset, each with its options; nothing was imported before."""
    (tmp_path / "announced-1.0.dist-info").mkdir()
    (tmp_path / "announced-1.0.dist-info" / "entry_points.txt").write_text(ANNOUNCED)
    (tmp_path / "announced-1.0.dist-info" / "METADATA").write_text("Name: announced\nVersion: 1.0\n")
    (tmp_path / "announced.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    args = ("evaluate", "tiny", "--encoder", "coarse", "--methods", "vote", "--shots", 1, "--seeds", 1)
    try:
        refused(*args, "--regions", "halves:cut=0", said=["cut is 0"])
        assert run(*args, "--set", "vote.k=2", "--regions", "halves:cut=3").splitlines()[1].startswith("vote")
    finally:
        for registry, name in ((encoders, "coarse"), (region_makers, "halves"), (datasets, "tiny")):
            registry.pop(name, None)
