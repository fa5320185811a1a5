"""The lessons in a real JupyterLab, in a real Chromium: the first page, and each widget where it is taught.

Without a Chromium this skips; ROSE_KIT_BROWSER=required makes that a failure. ROSE_KIT_SCREENSHOTS=docs
writes the images of the README; else they go to a temporary folder.
"""

import importlib.util
import io
import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "browser"))
import lab

PIXELS = """async e => { await e.decode(); const c = document.createElement('canvas');
c.width = e.naturalWidth; c.height = e.naturalHeight; c.getContext('2d').drawImage(e, 0, 0);
return c.toDataURL(); }"""
CAP = [(166, 38), (122, 77), (218, 77), (128, 58), (211, 58)]  # (x, y) on the screen: a region each


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if lab.chromium() is None or not importlib.util.find_spec("playwright"):
        stop = pytest.fail if os.environ.get("ROSE_KIT_BROWSER") == "required" else pytest.skip
        stop("there is no `chromium` on PATH, or Playwright is not installed")
    with lab.open_lab(tmp_path_factory.mktemp("lab")) as page:
        yield page


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    folder = os.environ.get("ROSE_KIT_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("screenshots")


class Widget:
    """The widget of a lesson, as a user meets it."""

    def __init__(self, page, name):
        self.page, self.root = page, lab.open_widget(page, name)
        self.root.scroll_into_view_if_needed()

    def image(self, n=0):
        return self.root.locator(".rk-canvas img").nth(n)

    def pixels(self, n):
        return self.image(n).evaluate(PIXELS)

    def drag(self, *points):
        """Press the mouse at a point (x, y) of the first image, move it over the others, let it go."""
        box = self.image().bounding_box()
        for i, (x, y) in enumerate(points):
            self.page.mouse.move(box["x"] + x, box["y"] + y)
            if i == 0:
                self.page.mouse.down()
        self.page.mouse.up()

    def expect(self, *parts):
        from playwright.sync_api import expect

        for part in parts:
            expect(self.root.locator(".rk-status")).to_contain_text(part, timeout=lab.WAIT)

    def expect_alt(self, n, words):
        from playwright.sync_api import expect

        expect(self.image(n)).to_have_attribute("alt", words, timeout=lab.WAIT)

    def becomes(self, n, pixels, same=True):
        """Wait until an image is (or is no longer) these pixels."""
        script = f"async ([e, old]) => (await ({PIXELS})(e) === old) === {str(same).lower()}"
        element = self.image(n).element_handle()
        self.page.wait_for_function(script, arg=[element, pixels], timeout=lab.WAIT)

    def save_screenshot(self, path):
        full = Image.open(io.BytesIO(self.root.screenshot())).convert("RGB")
        full.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)  # a third of the size
        assert 5_000 < path.stat().st_size < 180_000


def test_make_lab_opens_the_course_and_its_links_lead_on(page):
    """It is shown as a page rather than as source, with its images, and a link opens a lesson."""
    course = page.locator(".jp-MarkdownViewer")
    course.get_by_role("heading", name="The course").wait_for()
    images = course.locator("img").evaluate_all("all => all.map(one => one.decode().then(() => one.src))")
    assert len(images) >= 16  # a figure of each lesson; one that does not decode raises
    course.get_by_role("link", name="Quickstart", exact=True).first.click()
    page.locator(".jp-Notebook").get_by_role("heading", name="Quickstart").first.wait_for()
    page.locator(".jp-Notebook").get_by_role("link", name="Dense features").first.click()
    page.wait_for_url("**/01_dense_features.ipynb")


def test_explorer_shows_the_prototypes_behind_a_pixel(page, screenshots):
    widget = Widget(page, "EvidenceExplorer")
    before = widget.pixels(0)
    widget.drag((200, 30))
    widget.expect(": sky.", "sky in scene-")
    widget.becomes(0, before, same=False)
    widget.expect_alt(1, re.compile("^sky: score (.* in scene-){5}.* text and the rest$"))
    widget.root.get_by_label("go to").select_option("drone")
    widget.expect(": drone.")
    widget.expect_alt(1, re.compile("^drone: score .* drone in scene-"))
    widget.save_screenshot(screenshots / "widget_explorer.png")
    widget.root.get_by_role("application", name="the answer").focus()
    start = int(widget.root.locator(".rk-status").inner_text().split()[1].strip(","))
    page.keyboard.press("ArrowDown")
    widget.expect(f"row {start + 4}, ")
    page.keyboard.press("Shift+ArrowUp")
    widget.expect(f"row {start + 3}, ")
    waiting = widget.root.locator(".rk-waiting")
    assert not waiting.count()
    page.locator(".jp-CodeCell").filter(has_text="names_alone, lines").locator(".jp-InputArea-editor").click()
    lab.run(page, "Run Selected Cell")  # for seconds
    widget.root.scroll_into_view_if_needed()
    widget.drag((200, 30))
    waiting.wait_for()
    widget.expect(": sky.")
    waiting.wait_for(state="detached")


def test_sliders_change_the_mask(page, screenshots):
    widget = Widget(page, "FusionPlayground")
    mask = widget.pixels(1)
    widget.root.get_by_role("slider").nth(3).focus()  # scale
    page.keyboard.press("Home")
    widget.expect("scale 1,", "pixels changed")
    widget.becomes(1, mask, same=False)
    widget.save_screenshot(screenshots / "widget_playground.png")
    mask = widget.pixels(1)
    widget.root.get_by_label("method").select_option("rns")
    widget.expect("rns, k 4, ")
    widget.becomes(1, mask, same=False)
    box = widget.root.locator(".noUi-target").first.bounding_box()  # k, with the mouse
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    widget.expect("rns, k 1")


def test_teaching_changes_the_answer_and_undo_changes_it_back(page, screenshots):
    widget = Widget(page, "TeachByExample")
    add, answer = widget.root.get_by_role("button", name="Add to memory"), widget.pixels(1)
    add.click()
    widget.expect("⚠ the name is empty")
    widget.drag(CAP[0])
    widget.expect("Regions picked: 1 ")
    widget.drag(*CAP)  # begins in a region that is picked, so all that it passes are put back
    widget.expect("Regions picked: 0 ")
    for count, point in enumerate(CAP, start=1):
        widget.drag(point)
        widget.expect(f"Regions picked: {count} ")
    field = widget.root.get_by_label("name")
    field.fill("cap")
    add.dblclick()  # the second click comes while the first is worked on, and does nothing
    widget.expect("added 'cap', a new class", "most to 'cap'")
    widget.becomes(1, answer, same=False)
    widget.expect("added 'cap'")
    widget.save_screenshot(screenshots / "widget_teach.png")
    for count, point in enumerate(CAP, start=1):  # the name that stands in the field, however soon it is sent
        widget.drag(point)
        field.press_sequentially(f"name {count}")
        field.press("Enter") if count % 2 else add.click()
        widget.expect(f"added 'name {count}', a new class")
    for count in range(len(CAP), 0, -1):
        widget.root.get_by_role("button", name="Undo").click()
        widget.expect(f"took back 'name {count}', stored as 'officer/{count + 1}'")
    widget.root.get_by_role("button", name="Undo").click()
    widget.expect("took back 'cap', stored as 'officer/1'", "pixels changed")
    widget.becomes(1, answer)


@pytest.fixture(scope="module")
def objects(page):
    lab.open_notebook(page, "objects")
    lab.run(page, "Run All Cells")
    return page


@pytest.mark.parametrize("source", lab.DISPLAYS)
def test_objects_show_themselves(objects, source):
    cell = objects.locator(".jp-Notebook-cell").nth(1 + list(lab.DISPLAYS).index(source))
    shown = cell.locator(".jp-RenderedHTML")
    shown.wait_for(timeout=lab.WAIT)
    shown.scroll_into_view_if_needed()
    images, cells = lab.DISPLAYS[source]
    widths = shown.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(widths) >= images and all(widths) and shown.locator("td").count() >= cells
