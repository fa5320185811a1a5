"""The set-up holds together: dependencies, lock, conda, import directions, docstrings, the commands."""

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
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
MODULES = sorted((ROOT / "rose_kit").rglob("*.py"))
STAGES = ["types", "pooling", "registry", "net", "language", "metrics", "data", "scenes", "encoder", "memory"]
STAGES += ["regions", "fusion", "adapter", "model", "segmenter", "web", "bench", "ui", "cli"]
# Imported by us, and always brought along by the dependency on the right.
CARRIED = {
    "cloudpickle": "distributed",
    "huggingface_hub": "open_clip_torch",
    "jupyter_client": "ipykernel",
    "nbformat": "papermill",
    "packaging": "matplotlib",
    "scipy": "scikit-image",
    "timm": "open_clip_torch",
    "torchvision": "open_clip_torch",
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
    known |= set(sys.stdlib_module_names) | {"rose_kit"}
    for path in MODULES:
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


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_one_way(path):
    own = path.relative_to(ROOT / "rose_kit").with_suffix("").parts[0]
    if own == "__init__":
        pytest.skip("the face of the package imports lazily")
    assert own in STAGES, f"{own} is not a stage of the pipeline: {', '.join(STAGES)}"
    for name in imports(path):
        assert name != "rose_kit" or own in STAGES[STAGES.index("bench") :], "import the stage, not the face"
        if stage(name):
            assert STAGES.index(stage(name)) <= STAGES.index(own), f"{own} imports {name} from its right"


def test_the_face_is_small_and_quick():
    assert len((ROOT / "rose_kit/__init__.py").read_text().splitlines()) < 40
    code = "import sys, rose_kit, rose_kit.cli; print({'torch', 'faiss', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", rose_kit.__all__)
def test_public_names_resolve(name):
    assert getattr(rose_kit, name) is not None


def test_an_unknown_public_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no 'Segmentor'; it has: .*Segmenter"):
        _ = rose_kit.Segmentor


def modules():
    for info in pkgutil.walk_packages(rose_kit.__path__, "rose_kit."):
        if not info.name.endswith("__main__"):
            yield info.name


@pytest.mark.parametrize("name", list(modules()))
def test_public_callables_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for key, value in vars(module).items():
        own = callable(value) and getattr(value, "__module__", None) == name
        if key.startswith("_") or not own or not hasattr(value, "__name__"):
            continue
        assert inspect.getdoc(value), f"{name}.{key} has no docstring"
        if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                public = not method.startswith("_") and function.__module__ == name
                assert not public or inspect.getdoc(getattr(value, method)), f"{name}.{key}.{method}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=relative)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 300


# --- the commands ---------------------------------------------------------------------------------


def test_makefile_has_every_target():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"help", "demo", "test", "lab", "notebooks", "bench", "clean"} <= targets


def test_ci_calls_make_test():
    path = ROOT / ".ci/run"
    assert path.stat().st_mode & 0o111 and path.read_text().rstrip().endswith("make test")


def test_readme_gives_the_commands_and_links_to_files_that_exist():
    text = (ROOT / "README.md").read_text()
    assert text.index("make demo") < text.index("make test") < text.index("\n## ")
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_command_line_maps_errors_to_statuses(capsys, monkeypatch):
    assert cli.status([]) == 0
    listed = capsys.readouterr().out
    assert "doctor" in listed and "..." not in listed.partition("Commands:")[2]  # no sentence is cut
    for wrong, said in [
        (["docter"], "docter"),
        (["run"], "notebook"),
        (["run", "nowhere"], "'nowhere'"),
        (["run", "00", "-p"], "Options: --parameter, "),
        (["bench", "-p"], "Commands: claims, "),
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
