"""The widgets in a real JupyterLab, in a real Chromium: click, type, see the mask change.

Without a Chromium this skips; ROSE_KIT_BROWSER=required makes that a failure. ROSE_KIT_SCREENSHOTS=docs
writes the pictures of the README; else they go to a temporary folder.
"""

import importlib.util
import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "browser"))
import lab

PIXELS = """async e => { await e.decode(); const c = document.createElement('canvas');
c.width = e.naturalWidth; c.height = e.naturalHeight; c.getContext('2d').drawImage(e, 0, 0);
return c.toDataURL(); }"""
DOG = [(180, 276), (156, 276), (132, 324), (96, 324)]  # (x, y) on the screen: four regions


def why_not() -> str:
    if lab.chromium() is None:
        return "there is no Chromium: no `chromium` on PATH"
    return "" if importlib.util.find_spec("playwright") else "Playwright is not installed"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if reason := why_not():
        (pytest.fail if os.environ.get("ROSE_KIT_BROWSER") == "required" else pytest.skip)(reason)
    with lab.open_notebook(tmp_path_factory.mktemp("lab")) as page:
        yield page


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    asked = os.environ.get("ROSE_KIT_SCREENSHOTS")
    return Path(asked) if asked else tmp_path_factory.mktemp("screenshots")


class Widget:
    """One widget on the page, as a user meets it."""

    def __init__(self, page, name):
        self.page, self.name = page, name
        self.all = page.locator(".rk-widget").nth(list(lab.WIDGETS).index(name))
        self.line = self.all.locator(".rk-says")
        self.all.scroll_into_view_if_needed()

    def picture(self, n=0):
        return self.all.locator("img.widget-image").nth(n)

    def pixels(self, n=0):
        return self.picture(n).evaluate(PIXELS)

    def click_at(self, x, y):
        """Click the first picture, x to the right and y down in pixels of the screen, with the mouse."""
        box = self.picture().bounding_box()
        self.page.mouse.click(box["x"] + x, box["y"] + y)

    def says(self, *parts):
        from playwright.sync_api import expect

        for part in parts:
            expect(self.line).to_contain_text(part, timeout=lab.WAIT)

    def becomes(self, n, pixels, same=True):
        """Wait until a picture is (or is no longer) these pixels."""
        script = f"async ([e, old]) => (await ({PIXELS})(e) === old) === {str(same).lower()}"
        element = self.picture(n).element_handle()
        self.page.wait_for_function(script, arg=[element, pixels], timeout=lab.WAIT)

    def shoot(self, folder):
        path = folder / f"widget_{self.name}.png"
        full = Image.open(io.BytesIO(self.all.screenshot())).convert("RGB")
        full.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)  # a third of the size
        assert 5_000 < path.stat().st_size < 150_000


def test_explorer_shows_what_a_pixel_rests_on(page, screenshots):
    widget = Widget(page, "explorer")
    before = widget.pixels()
    widget.click_at(100, 340)  # the dog, which is taken for a tree
    widget.says(": tree", "tree in scene-", "speaks most for it")
    widget.becomes(0, before, same=False)
    stored = widget.all.get_by_role("listitem").locator("img")
    assert stored.count() >= 3 and " in scene-" in stored.first.get_attribute("alt")
    widget.shoot(screenshots)

    widget.all.get_by_label("go to").select_option("sky")
    widget.says(": sky.")
    type_number(widget, "row", 60)
    widget.says("row 60, ")
    page.keyboard.press("ArrowUp")  # a step of eight more: a number counts up, down the picture
    widget.says("row 64, ")


def type_number(widget, label, number):
    """Type into one of the two numbers that move the cursor; the focus stays there."""
    widget.all.get_by_label(label).fill(str(number))
    widget.page.keyboard.press("Enter")


def test_teaching_changes_the_answer_and_undo_changes_it_back(page, screenshots):
    widget = Widget(page, "teach")
    add, answer = widget.all.get_by_role("button", name="Add to memory"), widget.pixels(1)
    add.click()
    widget.says("⚠ the name is empty")
    for n, at in enumerate(DOG, start=1):
        widget.click_at(*at)
        widget.says(f"{n} region")
    widget.all.get_by_label("name").fill("puppy")
    add.click()
    widget.says("added 'puppy', a new class, from 4 regions", "most to 'puppy'")
    widget.becomes(1, answer, same=False)
    widget.shoot(screenshots)
    widget.all.get_by_role("button", name="Undo").click()
    widget.says("took back: add image 'photo/1'", "pixels changed")
    widget.becomes(1, answer)


def test_teaching_by_keyboard_alone(page):
    widget, keys = Widget(page, "teach"), page.keyboard
    widget.all.get_by_role("button", name="Clear").focus()
    keys.press("Enter")
    widget.says("0 regions picked")
    answer = widget.pixels(1)
    widget.all.get_by_label("row").focus()
    for number in ("91", "64"):  # row, then column
        keys.press("Control+A")
        keys.type(number)
        keys.press("Tab")
    widget.says("row 91, column 64", "0 regions")
    keys.press("Space")  # the next stop after the numbers: Pick / put back
    widget.says("1 region picked")
    keys.press("Enter")
    widget.says("0 regions picked")
    keys.press("Space")
    widget.says("1 region picked")
    keys.press("Tab")
    keys.type("dog")
    keys.press("Tab")
    keys.press("Enter")
    widget.says("added another example of 'dog'")
    widget.becomes(1, answer, same=False)
    keys.press("Tab")
    keys.press("Enter")
    widget.says("took back")
    widget.becomes(1, answer)


def test_sliders_move_the_mask(page, screenshots):
    widget = Widget(page, "playground")
    mask = widget.pixels(1)
    widget.all.get_by_label("method").select_option("RNS")
    widget.says("RNS, k 4, λ 0.9")
    widget.becomes(1, mask, same=False)
    mask = widget.pixels(1)
    widget.all.get_by_role("slider").nth(1).focus()  # λ
    page.keyboard.press("Home")
    widget.says("λ 0,", "pixels changed")
    widget.becomes(1, mask, same=False)
    page.keyboard.press("ArrowRight")
    widget.says("λ 0.05,")
    box = widget.all.locator(".noUi-target").first.bounding_box()  # k, with the mouse
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    widget.says("k 1", "λ 0.05,")
    widget.shoot(screenshots)
