"""Teach by example: pick regions of a photo, name them, and see the answer change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from rose_kit.regions import Regions, make_regions
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Segmentation, Vocabulary
from rose_kit.viz.overlay import contours, fit, outline
from rose_kit.viz.widgets.canvas import Canvas, StatusWidget, fitted_overlay, titled, value_at


class TeachByExample(StatusWidget):
    """Adds named regions of one photo to a memory, and segments it anew after each.

    `toggle`, `add_example`, `undo` and `clear` do in code what clicks and buttons do. `segmentation` is the
    answer, None while there is nothing to answer with; `picked` holds the regions picked.

    Args:
        segmenter: whose memory is added to; it may be empty.
        image: (H, W, 3) uint8.
        names: the classes to segment into at first; may be none.
        image_id: what the photo is called in the memory; example n is `image_id`/n.
        proposals: regions to pick from: "slic", "sam", what makes them, or an (H, W) map of ids.
        text: whether the names of new classes are read as text, too, where the others are.

    Raises:
        ValueError: as for `Segmenter.encode`, `make_regions` and `name_vocabulary`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        names: Vocabulary | Sequence[str] = (),
        image_id: str = "photo",
        proposals: str | Regions | NDArray[np.int64] = "slic",
        text: bool = True,
    ) -> None:
        self.segmenter, self.image, self.image_id, self.text = segmenter, np.asarray(image), image_id, text
        self.encoded = segmenter.encode(image)
        if isinstance(proposals, str):
            proposals = make_regions(proposals)
        self.proposals = np.asarray(proposals(image) if callable(proposals) else proposals)
        if self.proposals.shape != self.image.shape[:2]:
            raise ValueError(f"proposals are {self.proposals.shape}, but the image is {self.image.shape[:2]}")
        if not isinstance(names, Vocabulary):
            names = name_vocabulary(names, segmenter.encoder) if len(names) else Vocabulary(())
        self.vocabulary = names
        self.picked: set[int] = set()
        self._examples: list[tuple] = []  # image id of each, and vocabulary and picked regions before it
        self.segmentation = self._segment()
        super().__init__(*self._parts())
        self._redraw(None)
        self.point(*self.canvas.cursor)

    # --- what clicks and buttons do -------------------------------------------------------------------

    def point(self, row: int, column: int) -> None:
        """Move the cursor, and tell what is there.

        Raises:
            ValueError: the pixel is not in the image.
        """
        region = int(value_at(self.proposals, row, column))
        self.canvas.place(row, column)
        self._draw_photo()
        seg = self.segmentation
        now = "not answered yet" if seg is None else f"now {seg.names[seg.labels[row, column]]}"
        picked = "picked" if region in self.picked else "not picked"
        self.set_status(f"region {region} at row {row}, column {column}: {now}, {picked}. {self._count()}")

    def pick(self, points: Sequence[Sequence[int]]) -> None:
        """Pick the regions that a stroke of (row, column) passes; put them back if it begins in a picked one.

        Raises:
            ValueError: a pixel is not in the image.
        """
        regions = [int(value_at(self.proposals, *point)) for point in points]
        self.picked = self.picked - set(regions) if regions[0] in self.picked else self.picked | set(regions)
        self.point(*points[-1])

    def toggle(self, row: int, column: int) -> None:
        """Pick the region at a pixel, or put it back."""
        self.pick([(row, column)])

    def clear(self) -> None:
        """Pick no region."""
        self.picked = set()
        self._draw_photo()
        self.set_status(self._count())

    def add_example(self, name: str) -> Segmentation:
        """Add the regions picked to the memory under a name, as one prototype, and segment anew.

        Args:
            name: a class of the vocabulary, or a new one.

        Raises:
            ValueError: the name is empty, nothing is picked, or the memory or the method refuses; nothing
                changes then, nor with any other error.
        """
        name = name.strip()
        if not name:
            raise ValueError("the name is empty: type what the picked regions are")
        if not self.picked:
            raise ValueError(f"nothing is picked: click the regions that are {name!r}, then add them")
        vocabulary = self._with(name)  # before the memory changes: an encoder may refuse
        taken, number = set(self.segmenter.memory.images), 1
        while (example := f"{self.image_id}/{number}") in taken:
            number += 1
        mask = self.mask.astype(np.int64)
        self.segmenter.memory.add(example, self.encoded.feature_map, mask, {1: name}, thumbnail=self.image)
        before, old, count = self.segmentation, self.vocabulary, self._count()
        self.vocabulary = vocabulary
        try:
            self.segmentation = self._segment()
        except BaseException:  # an interrupt, too: no example would be there to undo the row
            self.vocabulary = old
            self.segmenter.memory.remove(example)
            raise
        self._examples.append((example, old, self.picked))
        self.picked = set()
        self.name.value = ""
        kind = "another example" if name in old.names else "a new class"
        self.set_status(f"added {name!r}, {kind}. {count} {self._redraw(before)}")
        return self.segmentation

    def undo(self) -> None:
        """Take back the latest example; its regions are picked again.

        Raises:
            ValueError: there is none, or others have taken it out of the memory already.
        """
        if not self._examples:
            raise ValueError("there is nothing to undo: nothing was added here")
        example, vocabulary, picked = self._examples[-1]
        self.segmenter.memory.remove(example)  # an image of its own: nothing else goes with it
        self._examples.pop()
        self.vocabulary, self.picked = vocabulary, picked
        before, self.segmentation = self.segmentation, self._segment()
        self.set_status(f"took back {example!r}. {self._redraw(before)}")

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) the regions picked."""
        return np.isin(self.proposals, list(self.picked))

    def _segment(self) -> Segmentation | None:
        known = set(self.segmenter.memory.classes) & set(self.vocabulary.names)
        if not known and not self.vocabulary.has_text.any():
            return None
        return self.segmenter.segment(self.encoded, self.vocabulary)

    def _with(self, name: str) -> Vocabulary:
        """The vocabulary with one more class; only the new name is encoded."""
        old = self.vocabulary
        if name in old.names:
            return old
        names = (*old.names, name)
        if not self.text or (len(old) and old.text is None):
            return Vocabulary(names, old.text, old.owner)
        new = name_vocabulary([name], self.segmenter.encoder)
        if old.text is None or new.text is None:
            return Vocabulary(names, new.text)
        return Vocabulary(names, np.concatenate([old.text, new.text]), np.append(old.owner, len(old)))

    # --- what is on the screen ------------------------------------------------------------------------

    def _parts(self) -> tuple[widgets.Widget, widgets.Widget]:
        """The two images, and the row of tools below them."""
        size = self.proposals.shape
        self.photo = fit(self.image)
        borders = contours(fit(self.proposals))
        self.photo[borders] = self.photo[borders] // 2 + 110
        label = "the photo: click regions to pick them, or move with the arrow keys and press Enter"
        self.canvas = Canvas(self.photo, size, label, self.safely(self.point), self.safely(self.pick))
        self.answer = Canvas(self.photo, size, "the answer")
        # Sent once it is whole: a click on Add may overtake letters that are still on their way.
        self.name = widgets.Text(description="name", placeholder="what is it?", continuous_update=False)
        self.add = self._button("Add to memory", lambda: self.add_example(self.name.value))
        self.add.button_style = "primary"
        self.back, self.clean = self._button("Undo", self.undo), self._button("Clear", self.clear)
        images = widgets.HBox([titled("the photo", self.canvas), titled("the answer", self.answer)])
        return images, widgets.HBox([self.name, self.add, self.back, self.clean])

    def _button(self, label: str, action: Callable) -> widgets.Button:
        button = widgets.Button(description=label, layout={"width": "auto"})
        button.on_click(lambda _: self.safely(action)())
        return button

    def _count(self) -> str:
        return f"Regions picked: {len(self.picked)} ({int(self.mask.sum())} px)."

    def _draw_photo(self) -> None:
        """Stripes over the regions picked, and the one at the cursor outlined."""
        shown = self.photo.copy()
        stripes = np.indices(shown.shape[:2]).sum(0) % 10 < 3
        picked = fit(self.mask)
        shown[picked & stripes] = 255
        shown[picked & np.roll(stripes, 3, 1)] = 0
        self.canvas.draw(outline(shown, self.proposals == self.proposals[self.canvas.cursor]))

    def _redraw(self, before: Segmentation | None) -> str:
        """Show photo and answer, and tell what is different now."""
        self._draw_photo()
        self.answer.draw(fitted_overlay(self.image, self.segmentation))
        return changes(before, self.segmentation)


def changes(before: Segmentation | None, after: Segmentation | None) -> str:
    """What is different now, in one sentence."""
    if after is None:
        return "There is nothing to answer with any more."
    new = np.array(after.names, object)[after.labels]
    old = "" if before is None else np.array(before.names, object)[before.labels]
    differ = new != old
    if not differ.any():
        return "No pixel changed."
    names, counts = np.unique(new[differ].astype(str), return_counts=True)
    return f"{differ.sum()} of {differ.size} pixels changed, most to {str(names[counts.argmax()])!r}."
