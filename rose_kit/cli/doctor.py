"""`rose-kit doctor`: is everything here, and if not, how to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import typer
from packaging.requirements import Requirement

MODULES = {  # distributions whose module has another name
    "faiss-cpu": "faiss",
    "open_clip_torch": "open_clip",
    "ipython": "IPython",
    "milvus-lite": "milvus_lite",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "segment-anything": "segment_anything",
}
EXTRAS = ("test", "milvus", "dask", "llm", "grounding")
REINSTALL = "run `make` again, or: python -m pip install --require-hashes -r requirements.lock"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        part: what was looked at.
        status: OK; FAIL where the kit needs it; WARN where it can do without.
        detail: what was found.
        mend: what to do about it; empty when OK.
    """

    part: str
    status: Literal["OK", "WARN", "FAIL"]
    detail: str
    mend: str = ""


def check(part: str, look: Callable[[], str], mend: str, *, required: bool = True) -> Check:
    """Look at one part: OK with what `look` returns, else FAIL (or WARN) with what it raised.

    >>> check("disk", lambda: "12 GB free", mend="delete something")
    Check(part='disk', status='OK', detail='12 GB free', mend='')
    """
    try:
        return Check(part, "OK", look())
    except Exception as error:  # a doctor reports whatever goes wrong, and looks at the next part
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(part, "FAIL" if required else "WARN", detail, mend)


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> str:
    """This interpreter's version.

    Raises:
        RuntimeError: it is older than 3.11.
    """
    if version < (3, 11):
        raise RuntimeError(f"{'.'.join(map(str, version))} is older than 3.11")
    return f"{platform.python_version()} at {sys.executable}"


def package(requirement: Requirement) -> str:
    """Import a required package and return its version.

    Raises:
        ImportError: it is not installed, cannot be imported, or is too old.
    """
    version = importlib.metadata.version(requirement.name)
    if not requirement.specifier.contains(version, prereleases=True):
        raise ImportError(f"version {version} does not satisfy {requirement}")
    importlib.import_module(MODULES.get(requirement.name, requirement.name))
    return version


def requirements(extra: str = "") -> list[Requirement]:
    """What rose_kit requires, of itself (`extra=""`) or for one of its extras."""
    every = [Requirement(line) for line in importlib.metadata.requires("rose_kit") or ()]
    if not extra:
        return [r for r in every if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [r for r in every if r.marker and r.marker.evaluate({"extra": extra})]


def bundled_weights() -> str:
    """Load the bundled CLIP and encode one image.

    Raises:
        Exception: whatever loading or encoding raised.
    """
    import numpy as np

    from rose_kit import load_encoder

    feature_map = load_encoder("bundled").encode_image(np.zeros((64, 64, 3), np.uint8))
    return f"encode a 64 px image to {' x '.join(map(str, feature_map.values.shape))}"


def jupyter_kernel() -> str:
    """The interpreter that Jupyter's `python3` kernel starts.

    Raises:
        RuntimeError: it is not this one, so notebooks would not find rose_kit.
    """
    from jupyter_client.manager import KernelManager

    interpreter = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    # Links are compared unresolved: a virtual environment's python links to the system's.
    if os.path.abspath(interpreter) != os.path.abspath(sys.executable):
        raise RuntimeError(f"python3 starts {interpreter}, not {sys.executable}")
    return "python3 starts this interpreter"


def network(seconds: float = 3.0) -> str:
    """Reach the hub that pretrained weights come from.

    Args:
        seconds: give up after this long, name resolution included.

    Raises:
        OSError: it cannot be reached.
    """
    from huggingface_hub.constants import ENDPOINT

    answer: list[object] = []

    def ask() -> None:
        try:
            answer.append(urllib.request.urlopen(ENDPOINT, timeout=seconds).status)
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # a resolver obeys no time-out of ours
    thread.start()
    thread.join(seconds)
    if not answer or isinstance(answer[0], OSError):
        raise OSError(f"{ENDPOINT} did not answer: {answer[0] if answer else f'{seconds:g} s passed'}")
    return f"{ENDPOINT} answers"


def checks() -> Iterator[Check]:
    """Every part in turn, as it is looked at."""
    yield check("python", python_version, "install Python 3.11 or newer, then: make PYTHON=python3.11")
    for r in requirements():
        yield check(r.name, lambda r=r: package(r), REINSTALL)
    yield check("bundled weights", bundled_weights, "git checkout -- rose_kit/encoder/weights")
    kernel = "start Jupyter from this environment, with JUPYTER_PATH unset and JUPYTER_PREFER_ENV_PATH=1"
    yield check("jupyter kernel", jupyter_kernel, kernel)
    without = "everything bundled works without; pretrained CLIP weights and datasets need it"
    yield check("network", network, without, required=False)
    for extra in EXTRAS:
        for r in requirements(extra):
            mend = f"pip install -e '.[{extra}]'"
            yield check(f"{r.name} ({extra})", lambda r=r: package(r), mend, required=False)


def doctor() -> None:
    """Check the installation: OK, WARN or FAIL for each part, and how to mend it."""
    failed = 0
    for c in checks():
        failed += c.status == "FAIL"
        typer.echo(f"{c.status:<5} {c.part:<20} {c.detail}")
        if c.mend:
            typer.echo(f"{'':<26} mend: {c.mend}")
    typer.echo(f"{failed} required part(s) failed" if failed else "all required parts are OK")
    if failed:
        raise typer.Exit(1)
