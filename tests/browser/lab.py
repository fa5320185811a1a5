"""A real JupyterLab in a real Chromium, set up as by `make lab`: how the browser test drives lessons."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import nbformat
from nbformat import v4
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

FLAGS = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
         "disable-component-update", "disable-sync")  # fmt: skip
WAIT = 120_000  # ms; only a machine that is stuck takes so long
ROOT = Path(__file__).parents[2]
WINDOWING = '{"windowingMode": "none"}'  # cells out of sight stay in the page
FOLDERS = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
           "IPYTHONDIR": "ipython", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "JUPYTERLAB_SETTINGS_DIR": "settings"}  # fmt: skip

SETUP = """
from data_scripts.scenes import CLASSES, SEEN, SceneDataset
from rose_kit import RNS, Segmenter, SupportMemory, compare, load_encoder

encoder = load_encoder("bundled/clear")
windows = encoder.preferred_windows
memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
for scene in SceneDataset(12, first=1_000_000, size=128):
    features = encoder.encode_image(scene.image, windows)
    memory.add(scene.image_id, features, scene.mask, scene.classes, thumbnail=scene.image)
segmenter = Segmenter(encoder, memory, RNS(), windows=windows)
scene = SceneDataset(1, first=2_000_004, size=128)[0]
"""
# The widget of each lesson, and parameters that shorten what comes before it and leave the widget as it is.
LESSONS = {
    "EvidenceExplorer": ("03_retrieval", {}),
    "FusionPlayground": ("04_fusion", {"shots": [1], "queries": 5}),
    "TeachByExample": ("14_your_images", {}),
}
DISPLAYS = {  # what ends a cell -> how many images and at least how many cells of tables it shows
    "segmenter(scene.image, SEEN)": (1, 9),
    "memory": (40, 36),
    "segmenter(scene.image, SEEN).evidence": (0, 52),
    """scenes = SceneDataset(6, first=1_000_000, size=64), SceneDataset(2, first=2_000_000, size=64)
compare([RNS(), RNS(k=1), "knn-clip"], scenes, encoder, shots=1, progress=False)""": (0, 27),
}


def chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """Start JupyterLab on a copy of the course, away from the user's own settings; gives its address."""
    settings = folder / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(WINDOWING)
    for part in ("docs", "notebooks"):
        shutil.copytree(ROOT / part, folder / "root" / part)
    shutil.copy(ROOT / "README.md", folder / "root")
    for stem, parameters in LESSONS.values():
        path = folder / "root/notebooks" / f"{stem}.ipynb"
        nbformat.write(parameterize_notebook(load_notebook_node(str(path)), parameters), path)
    nb = v4.new_notebook(cells=[v4.new_code_cell(source) for source in (SETUP.strip(), *DISPLAYS)])
    nb.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nb, folder / "root/notebooks/objects.ipynb")
    env = os.environ | {name: str(folder / part) for name, part in FOLDERS.items()}
    env |= {"JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1"}
    env["JUPYTER_CONFIG_PATH"] = str(ROOT / "notebooks/course/lab")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.port={address.split(':')[-1]}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'root'}"]  # fmt: skip
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        while True:
            assert server.poll() is None, f"JupyterLab ended: {(folder / 'log').read_text()[-2000:]}"
            with suppress(OSError):
                urlopen(f"{address}/api?token={token}", timeout=5).close()
                break
            time.sleep(0.2)
        yield f"{address}/?token={token}"
    finally:
        server.terminate()  # it ends its kernels, too
        server.wait()


@contextmanager
def open_lab(folder: Path):
    """The page that JupyterLab opens with: gives Playwright's page."""
    from playwright.sync_api import sync_playwright

    with jupyter_lab(folder) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=[f"--{flag}" for flag in FLAGS])
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        page.set_default_timeout(WAIT)
        page.goto(address)
        yield page
        browser.close()


def open_notebook(page, stem: str) -> None:
    """Open a notebook of the course by itself, with a kernel that is ready."""
    page.goto(f"{re.split('/lab|/doc', page.url)[0]}/doc/tree/notebooks/{stem}.ipynb")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()


def run(page, command: str) -> None:
    """Choose a command of the menu Run."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text(command, exact=True).click()


def open_widget(page, name: str):
    """Open a widget's lesson, run the cells up to the one that makes it; gives the widget's element."""
    stem, _ = LESSONS[name]
    open_notebook(page, stem)
    code = page.locator(".jp-CodeCell").filter(has_text=f"{name}(").first.locator(".jp-InputArea-editor")
    for command in ("Run All Above Selected Cell", "Run Selected Cell"):
        code.click()
        run(page, command)
    widget = page.locator(".rk-widget")
    widget.locator(".rk-status").wait_for()
    return widget
