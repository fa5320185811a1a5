"""Teach by example: pick regions of a photo, name them, and see the answer change."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from rose_kit.regions import Regions, make_regions
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Segmentation, Vocabulary
from rose_kit.viz.overlay import contours
from rose_kit.viz.widgets.canvas import Canvas, Shell, at, drawn, fit, outline, picture, png


class Teacher:
    """Adds named regions of one photo to a memory, and answers anew after each.

    Args:
        segmenter: whose memory is taught; the memory may be empty.
        image: (H, W, 3) uint8.
        names: the classes to answer with at first; may be none.
        image_id: what the photo is called in the memory; lesson n is `image_id`/n.
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
        self._lessons: list[tuple] = []  # image id of each, and the vocabulary and choice before it
        self.segmentation = self.answer()

    def answer(self) -> Segmentation | None:
        """The photo as it is answered now; None while there is nothing to answer with."""
        held = set(self.segmenter.memory.classes) & set(self.vocabulary.names)
        if not held and not self.vocabulary.has_text.any():
            return None
        return self.segmenter.segment(self.encoded, self.vocabulary)

    def region(self, row: int, column: int) -> int:
        """The region at a pixel.

        Raises:
            ValueError: the pixel is not in the image.
        """
        return int(at(self.proposals, row, column))

    def toggle(self, row: int, column: int) -> bool:
        """Pick the region at a pixel, or put it back; returns whether it is picked now."""
        self.picked ^= {self.region(row, column)}
        return self.region(row, column) in self.picked

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) the regions picked."""
        return np.isin(self.proposals, list(self.picked))

    def teach(self, name: str) -> Segmentation:
        """Add the regions picked to the memory under a name, as one prototype, and answer anew.

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
        while (lesson := f"{self.image_id}/{number}") in taken:
            number += 1
        self.segmenter.memory.add(
            lesson, self.encoded.feature_map, self.mask.astype(np.int64), {1: name}, thumbnail=self.image
        )
        before, self.vocabulary = self.vocabulary, vocabulary
        try:
            self.segmentation = self.answer()
        except BaseException:  # an interrupt, too: no lesson would be there to undo the row
            self.vocabulary = before
            self.segmenter.memory.remove(lesson)
            raise
        self._lessons.append((lesson, before, self.picked))
        self.picked = set()
        return self.segmentation

    def undo(self) -> str:
        """Take back the latest lesson; its regions are picked again. Returns what was taken back.

        Raises:
            ValueError: there is none, or others have taken it out of the memory already.
        """
        if not self._lessons:
            raise ValueError("there is nothing to undo: nothing was added here")
        lesson, vocabulary, picked = self._lessons[-1]
        self.segmenter.memory.remove(lesson)  # an image of its own: nothing else goes with it
        self._lessons.pop()
        self.vocabulary, self.picked = vocabulary, picked
        self.segmentation = self.answer()
        return f"add image {lesson!r}"

    def _with(self, name: str) -> Vocabulary:
        """The vocabulary with one more class; only the new name is encoded."""
        old = self.vocabulary
        if name in old.names:
            return old
        if not self.text or (len(old) and old.text is None):
            return Vocabulary((*old.names, name), old.text, old.owner)
        new = name_vocabulary([name], self.segmenter.encoder)
        if old.text is None or new.text is None:
            return Vocabulary((*old.names, name), new.text)
        return Vocabulary(
            (*old.names, name), np.concatenate([old.text, new.text]), np.append(old.owner, len(old))
        )


class TeachByExample(Shell):
    """`Teacher` to click at: pick regions on the left, name them, see the answer on the right.

    `toggle`, `teach`, `undo` and `clear` do in code what clicks and buttons do.

    Args:
        segmenter, image, names, **options: as for `Teacher`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        names: Vocabulary | Sequence[str] = (),
        **options,
    ) -> None:
        self.model = Teacher(segmenter, image, names, **options)
        self.photo = fit(self.model.image)
        self.photo_borders = contours(fit(self.model.proposals))
        size = self.model.image.shape[:2]
        self.canvas = Canvas(
            self.photo, size, "the photo and its regions: click to pick",
            lambda row, column: self.attempt(self.toggle, row, column),
            lambda row, column: self.attempt(self.point, row, column),
        )  # fmt: skip
        self.answer = picture(self.photo, "the answer")
        # Sent once it is whole: a click on Add may overtake letters that are still on their way.
        self.name = widgets.Text(
            placeholder="what is it?", description="name", continuous_update=False, layout={"width": "220px"}
        )
        self.name.style.description_width = "45px"
        self.pick = self._button("Pick / put back", "the region at the cursor", self._toggle_here)
        self.add = self._button("Add to memory", "the picked regions, under the name", self._add, "primary")
        self.back = self._button("Undo", "take back what was added last", lambda: self.attempt(self.undo))
        self.clean = self._button("Clear", "put all picked regions back", lambda: self.attempt(self.clear))
        tools = widgets.HBox([self.pick, self.name, self.add, self.back, self.clean])
        right = widgets.VBox([widgets.HTML("<b>the answer</b>", layout={"height": "29px"}), self.answer])
        right.layout.margin = "0 0 0 12px"
        super().__init__(widgets.HBox([self.canvas, right]), tools)
        self._draw_answer()
        self.point(size[0] // 2, size[1] // 2)

    def _button(self, label: str, says: str, action, style: str = "") -> widgets.Button:
        button = widgets.Button(description=label, tooltip=says, button_style=style, layout={"width": "auto"})
        button.on_click(lambda _: action())
        return button

    def point(self, row: int, column: int) -> None:
        """Move the cursor, and say what is there."""
        region = self.model.region(row, column)
        self.canvas.place(row, column)
        self._draw_photo()
        seg = self.model.segmentation
        now = "not answered yet" if seg is None else f"now {seg.names[seg.labels[row, column]]}"
        held = "picked" if region in self.model.picked else "not picked"
        self.tell(f"region {region} at row {row}, column {column}: {now}, {held}. {self._count()}")

    def toggle(self, row: int, column: int) -> None:
        """Pick the region at a pixel, or put it back; see `Teacher.toggle`."""
        self.model.toggle(row, column)
        self.point(row, column)

    def teach(self, name: str) -> Segmentation:
        """Add the picked regions under a name; see `Teacher.teach`."""
        before, known = self.model.segmentation, name.strip() in self.model.vocabulary.names
        regions, pixels = len(self.model.picked), int(self.model.mask.sum())
        after = self.model.teach(name)
        self.name.value = ""
        what = f"another example of {name.strip()!r}" if known else f"{name.strip()!r}, a new class"
        self._renew(f"added {what}, from {_plural(regions, 'region')} ({pixels} px).", before)
        return after

    def undo(self) -> None:
        """Take back what was added last; see `Teacher.undo`."""
        before = self.model.segmentation
        undone = self.model.undo()
        self._renew(f"took back: {undone}.", before)

    def clear(self) -> None:
        """Put all picked regions back."""
        self.model.picked = set()
        self._draw_photo()
        self.tell(self._count())

    def _toggle_here(self) -> None:
        self.attempt(self.toggle, self.canvas.row.value, self.canvas.column.value)

    def _add(self) -> None:
        self.attempt(self.teach, self.name.value)

    def _count(self) -> str:
        return f"{_plural(len(self.model.picked), 'region')} picked, {int(self.model.mask.sum())} px."

    def _renew(self, says: str, before: Segmentation | None) -> None:
        self._draw_photo()
        self._draw_answer()
        self.tell(f"{says} {changes(before, self.model.segmentation)}")

    def _draw_photo(self) -> None:
        """The borders of all regions, stripes over those picked, the one at the cursor outlined."""
        shown = self.photo.copy()
        shown[self.photo_borders] = shown[self.photo_borders] // 2 + 110
        stripes = np.indices(shown.shape[:2]).sum(0) % 10 < 3
        picked = fit(self.model.mask)
        shown[picked & stripes] = 255
        shown[picked & np.roll(stripes, 3, 1)] = 0
        here = self.model.proposals == self.model.region(self.canvas.row.value, self.canvas.column.value)
        self.canvas.draw(outline(shown, here))

    def _draw_answer(self) -> None:
        self.answer.value = png(drawn(self.model.image, self.model.segmentation))


def changes(before: Segmentation | None, after: Segmentation | None) -> str:
    """What is different now, in one sentence."""
    if after is None:
        return "There is nothing to answer with any more."
    old = (
        np.full(after.labels.shape, "", object)
        if before is None
        else np.array(before.names, object)[before.labels]
    )
    new = np.array(after.names, object)[after.labels]
    differ = new != old
    if not differ.any():
        return "No pixel changed."
    names, counts = np.unique(new[differ].astype(str), return_counts=True)
    return f"{differ.sum()} of {differ.size} pixels changed, most to {str(names[counts.argmax()])!r}."


def _plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
