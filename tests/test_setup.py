"""The set-up holds together: dependencies, lock, conda, import directions, the public names."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import rose_kit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = {x: [Requirement(r) for r in lines] for x, lines in PROJECT["optional-dependencies"].items()}
KIT = sorted((ROOT / "rose_kit").rglob("*.py"))
STAGES = ["types", "pooling", "metrics", "registry", "data", "encoder", "memory", "regions", "fusion"]
STAGES += ["adapter", "model", "segmenter", "evaluation", "contract", "web", "viz", "cli"]
OTHERS = {"data_scripts", "course", "experiments", "plugins"}


# --- dependencies ---------------------------------------------------------------------------------


def test_conda_lists_what_pyproject_does_and_says_which_notebook_needs_each_line():
    text = (ROOT / "environment.yml").read_text()
    environment = yaml.safe_load(text)
    assert environment["channels"] == ["conda-forge"]
    python = re.fullmatch(r"python=(3\.\d+)", environment["dependencies"][0])  # Binder reads no other form
    assert SpecifierSet(PROJECT["requires-python"]).contains(python[1])
    lines = [line for line in text.splitlines() if re.search("[>=]=", line)]
    matches = [re.fullmatch(r"\s+- ([\w-]+[>=]=[\w.]+)(?:\s+# (.+))?", line) for line in lines]
    listed = {r.name: str(r.specifier) for m in matches if (r := Requirement(m[1]))}
    names = {"torch": "pytorch-cpu", "open_clip_torch": "open-clip-torch"}
    scale = [*OPTIONAL["milvus"], *OPTIONAL["dask"]]
    expected = {names.get(r.name, r.name): str(r.specifier) for r in [*CORE, *scale]}
    assert listed == expected
    known = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    for match in matches:
        named = set(re.findall(r"\d\d_\w+", match[2] or ""))
        assert ("every notebook" in match[2] or named) and named <= known, match[0]


def test_lock_pins_every_dependency_with_hashes_and_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "@ " not in text and not re.search(r"^\s*-(?!-hash)", text, re.M)
    pin = r"^([\w.-]+)==([^\s;]+)([^\n]*\\\n(?:\s+--hash=sha256:[0-9a-f]{64}( \\)?\n)+)?"
    locked = {}
    for name, version, hashes, _ in re.findall(pin, text, re.M):
        assert hashes, name
        locked.setdefault(name, []).append(version)
    for requirement in [*CORE, *chain(*OPTIONAL.values()), Requirement("setuptools>=77")]:
        versions = locked[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


# --- imports --------------------------------------------------------------------------------------


def imports(path: Path) -> list[str]:
    """Absolute dotted names of everything a file imports when it runs, wherever in the file it does."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree, names = ast.parse(path.read_text()), []
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


STUB = ast.parse(Path(rose_kit.__file__).with_suffix(".pyi").read_text())
FACE = {a.name: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for a in node.names}


def misplaced(own: str, names: list[str]) -> list[str]:
    """Which imports of a stage point to what is built on it, or outside."""
    wrong = []
    for name in names:
        head, _, rest = name.partition(".")
        first = rest.split(".")[0]
        stage = first if first in STAGES else FACE.get(first, own).split(".")[0]
        if head in OTHERS or (head == "rose_kit" and STAGES.index(stage) > STAGES.index(own)):
            wrong.append(name)
    return wrong


def test_imports_point_one_way():
    """Nothing in the kit knows who uses it, and a stage knows only those before it."""
    names = ["rose_kit.fusion.late", "rose_kit.RNS", "course.n00", "rose_kit.data.Sample", "rose_kit.unit"]
    assert misplaced("memory", names) == names[:3]
    for path in KIT:
        own = path.relative_to(ROOT / "rose_kit").with_suffix("").parts[0]
        if own not in ("__init__", "__main__"):  # the face imports lazily
            assert own in STAGES, f"{own} is not a stage: {', '.join(STAGES)}"
            assert not misplaced(own, imports(path)), path


# --- the face, and what stands beside it ----------------------------------------------------------


def test_the_face_is_quick_and_its_names_resolve():
    code = "import sys, rose_kit, rose_kit.cli; print({'torch', 'faiss', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert all(getattr(rose_kit, name) is not None for name in rose_kit.__all__)
    with pytest.raises(AttributeError, match="Segmentor"):
        _ = rose_kit.Segmentor
