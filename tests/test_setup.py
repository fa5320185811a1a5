"""The set-up holds together: dependencies, lock, conda, import directions, the commands."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rose_kit
from rose_kit import cli
from rose_kit.cli import doctor

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
OPTIONAL = {x: [Requirement(r) for r in lines] for x, lines in PROJECT["optional-dependencies"].items()}
SCALE = [*OPTIONAL["milvus"], *OPTIONAL["dask"]]
KIT, DATA = (sorted((ROOT / name).rglob("*.py")) for name in ("rose_kit", "data_scripts"))
STAGES = ["types", "pooling", "metrics", "registry", "data", "encoder", "memory", "regions", "fusion"]
STAGES += ["adapter", "model", "segmenter", "evaluation", "contract", "web", "viz", "cli"]
# Imported by us, and always brought along by the dependency on the right.
CARRIED = {
    "cloudpickle": "distributed",
    "huggingface_hub": "open_clip_torch",
    "jupyter_client": "ipykernel",
    "nbformat": "papermill",
    "packaging": "matplotlib",
    "requests": "pooch",
    "scipy": "scikit-image",
    "timm": "open_clip_torch",
    "torchvision": "open_clip_torch",
    "urllib3": "requests",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- dependencies ---------------------------------------------------------------------------------


def test_conda_lists_what_pyproject_does():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    pattern = re.compile(r"\s+- (?P<package>[\w-]+>=[\w.]+)(\s+# (?P<why>.+))?$")
    found = [match for line in lines if (match := pattern.match(line))]
    listed = {r.name: str(r.specifier) for m in found if (r := Requirement(m["package"]))}
    names = {"torch": "pytorch-cpu", "open_clip_torch": "open-clip-torch"}
    expected = {names.get(r.name, r.name): str(r.specifier) for r in [*CORE, *SCALE]}
    assert listed == {"python": PROJECT["requires-python"]} | expected


def test_conda_says_which_notebook_needs_each_line():
    known = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    for line in (ROOT / "environment.yml").read_text().splitlines():
        if ">=" in line and "python>=" not in line:
            named = set(re.findall(r"\d\d_\w+", line))
            assert "every notebook" in line or named, line
            assert named <= known, f"{line.strip()} names notebooks that do not exist"


def test_conda_file_is_valid_yaml():
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["channels"] == ["conda-forge"]


def test_lock_pins_every_dependency_with_hashes_and_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "@ " not in text and not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)([^\n]*\\\n(?:\s+--hash=sha256:[0-9a-f]{64}( \\)?\n)+)?", text, re.M
    )
    assert all(hashes for _, _, hashes, _ in pins)
    locked = {}
    for name, version, _, _ in pins:
        locked.setdefault(name, []).append(version)
    for requirement in [*CORE, *EXTRAS, Requirement("setuptools>=77")]:
        versions = locked[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_what_the_package_imports_is_declared():
    known = {
        doctor.MODULES.get(r.name, r.name) for r in [*CORE, *SCALE, *OPTIONAL["llm"], *OPTIONAL["grounding"]]
    } | set(CARRIED)
    known |= set(sys.stdlib_module_names) | {"rose_kit", "data_scripts"}
    for path in [*KIT, *DATA]:
        imported = {name.split(".")[0] for name in imports(path)}
        assert imported <= known, f"{relative(path)} imports {sorted(imported - known)}"


@pytest.mark.parametrize("module", CARRIED)
def test_carried_modules_are_required_by_what_carries_them(module):
    required = {canonicalize_name(Requirement(r).name) for r in importlib.metadata.requires(CARRIED[module])}
    assert canonicalize_name(module) in required


# --- the package ----------------------------------------------------------------------------------


def imports(path: Path) -> list[str]:
    """Absolute dotted names of everything a file imports, wherever in the file it does."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def stage(dotted: str) -> str | None:
    """The stage an imported name of rose_kit lives in; None for the face itself and for other packages."""
    head, _, rest = dotted.partition(".")
    name = rest.split(".")[0]
    if head != "rose_kit" or not name or name.startswith("__"):
        return None
    return rose_kit._WHERE.get(name, name) if name not in STAGES else name


def misplaced(own: str, names: list[str]) -> list[str]:
    """Which imports of a stage point to what is built on it."""
    outside = {"data_scripts", "course", "experiments", "plugins"}
    right = set(STAGES[STAGES.index(own) + 1 :])
    return [name for name in names if name.split(".")[0] in outside or stage(name) in right]


def test_imports_point_one_way():
    """Nothing in the kit knows who uses it, and a stage knows only those before it."""
    assert misplaced("memory", ["rose_kit.fusion.late", "rose_kit.RNS", "course.n00", "rose_kit.data"]) == [
        "rose_kit.fusion.late", "rose_kit.RNS", "course.n00",
    ]  # fmt: skip
    for path in KIT:
        own = path.relative_to(ROOT / "rose_kit").with_suffix("").parts[0]
        if own != "__init__":  # the face imports lazily
            assert own in STAGES, f"{own} is not a stage: {', '.join(STAGES)}"
            assert not misplaced(own, imports(path)), relative(path)


def test_the_face_is_quick():
    code = "import sys, rose_kit, rose_kit.cli; print({'torch', 'faiss', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_resolve():
    assert all(getattr(rose_kit, name) is not None for name in rose_kit.__all__)


def test_an_unknown_public_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no 'Segmentor'; it has: .*Segmenter"):
        _ = rose_kit.Segmentor


# --- the commands ---------------------------------------------------------------------------------


def test_ci_calls_make_test():
    path = ROOT / ".ci/run"
    assert path.stat().st_mode & 0o111 and path.read_text().rstrip().endswith("make test")


def test_links_of_the_readmes_lead_to_files():
    for page in ("README.md", "notebooks/README.md"):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_command_line_maps_errors_to_statuses(capsys, monkeypatch):
    assert cli.status([]) == 0
    listed = capsys.readouterr().out
    assert "doctor" in listed and "..." not in listed.partition("Commands:")[2]  # no sentence is cut
    for wrong, said in [
        (["docter"], "docter"),
        (["run"], "notebook"),
        (["run", "nowhere"], "'nowhere'"),
        (["run", "00", "-p"], "Options: --parameter, "),
        (["memory", "-p"], "Commands: build, "),
    ]:
        assert cli.status(wrong) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and said in err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (ValueError("two\nlines"), 2, "error: two lines\n"),
        (FileNotFoundError("no file 'x'"), 2, "error: no file 'x'\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_a_command_become_statuses(capsys, monkeypatch, raised, status, said):
    def fail(name):
        raise raised

    monkeypatch.setattr(cli.run, "find_notebook", fail)
    assert cli.status(["run", "00"]) == status
    assert capsys.readouterr().err == said


def test_a_bug_is_not_reported_as_a_users_mistake(monkeypatch):
    monkeypatch.setattr(cli.run, "find_notebook", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.status(["run", "00"])


# --- the doctor -----------------------------------------------------------------------------------


def test_doctor_fails_with_a_mend_for_what_is_required(monkeypatch, capsys):
    def broken():
        raise OSError("weights.safetensors is\ntruncated")

    monkeypatch.setattr(doctor, "bundled_weights", broken)
    monkeypatch.setattr(doctor, "network", broken)
    monkeypatch.setattr(doctor, "requirements", lambda extra="": [Requirement("numpy>=2")])
    assert cli.status(["doctor"]) == 1
    report = capsys.readouterr().out
    assert re.search(
        r"^FAIL  bundled weights +OSError: weights.safetensors is truncated\n +mend: ", report, re.M
    )
    assert re.search(r"^WARN  network ", report, re.M) and re.search(r"^OK    numpy +2", report, re.M)
    monkeypatch.setattr(doctor, "bundled_weights", lambda: "fine")
    assert cli.status(["doctor"]) == 0


def test_doctor_refuses_what_is_old_missing_or_elsewhere(monkeypatch):
    with pytest.raises(RuntimeError, match=r"3\.10\.4 is older than 3\.11"):
        doctor.python_version((3, 10, 4))
    with pytest.raises(ImportError, match="does not satisfy numpy>=99"):
        doctor.package(Requirement("numpy>=99"))
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        doctor.package(Requirement("rose-kit-no-such-package"))


def test_doctor_notices_a_kernel_that_starts_another_python(monkeypatch, tmp_path):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    assert doctor.jupyter_kernel() == "python3 starts this interpreter"
    spec = tmp_path / "kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        '{"argv": ["/elsewhere/python", "-m", "ipykernel"], "display_name": "x", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="python3 starts /elsewhere/python, not "):
        doctor.jupyter_kernel()


def test_doctor_gives_up_on_a_silent_network(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        with pytest.raises(OSError, match=f"{endpoint} did not answer"):
            doctor.network(seconds=0.2)


def test_doctor_knows_the_packages():
    assert {r.name for r in doctor.requirements()} == {r.name for r in CORE}
    extras = [r.name for extra in doctor.EXTRAS for r in doctor.requirements(extra)]
    assert sorted(extras) == sorted(r.name for r in EXTRAS)
