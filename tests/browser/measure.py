"""How long each widget takes from a click or a key to the changed picture, in JupyterLab in Chromium.

    python tests/browser/measure.py [TIMES]

prints the median and the worst by the browser's own clock, from the event to the new picture being decoded.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

import lab

ACT = """async ([widget, picture, selector, n, key]) => {
  const root = document.querySelectorAll('.rk-widget')[widget];
  const image = root.querySelectorAll('img.widget-image')[picture];
  const target = root.querySelectorAll(selector)[n], old = image.src, start = performance.now();
  if (key) target.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  else target.click();
  while (image.src === old) await new Promise(requestAnimationFrame);
  let shown;  // a picture that is replaced while it is decoded is not the last one
  do { shown = image.src; await image.decode().catch(() => 0); } while (image.src !== shown);
  return performance.now() - start;
}"""
CELL, ADD, UNDO, HANDLE = "button.rk-cell", "button.mod-primary", "button[title^='take back']", ".noUi-handle"


def main(times: int = 15) -> None:
    """Measure, and print a line for each action."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, lab.open_notebook(Path(folder)) as page:

        def act(name: str, *how) -> None:
            took.setdefault(name, []).append(page.evaluate(ACT, [*how, None][:5]))

        teach, play = page.locator(".rk-widget").nth(1), page.locator(".rk-widget").nth(2)
        for n in range(times):
            act("explorer: click a pixel", 0, 0, CELL, (n * 37 + 5) % 256)
            act("teach: pick a region", 1, 0, CELL, (n * 37 + 5) % 256)
            teach.locator(".rk-says", has_text="1 region picked").wait_for()
            teach.get_by_label("name").fill(f"thing {n}")
            teach.get_by_label("name").press("Tab")
            act("teach: add to memory", 1, 1, ADD, 0)
            act("teach: undo", 1, 1, UNDO, 0)
            teach.get_by_role("button", name="Clear").click()
            teach.locator(".rk-says", has_text="0 regions picked").wait_for()
        for method in ("kNN-CLIP", "FREEDA", "RNS"):
            play.get_by_label("method").select_option(method)
            play.locator(".rk-says", has_text=method).wait_for()
            for n in range(times):
                act(f"playground: λ of {method}", 2, 1, HANDLE, 1, "ArrowLeft" if n % 2 else "ArrowRight")
    for name, ms in took.items():
        print(f"{name:<28} median {median(ms):4.0f} ms, worst {max(ms):4.0f} ms, {len(ms)} times")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
