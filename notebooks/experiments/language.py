"""How much of a class its name tells: text towers from clear language to noise, against a linear probe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from data_scripts.bundled.text_tower import TextRecipe, train_text_tower
from data_scripts.scenes import SEEN, SceneDataset
from rose_kit.adapter import RNS
from rose_kit.adapter.offline import Supervised
from rose_kit.encoder import OpenClipEncoder, load_encoder, preferred_windows
from rose_kit.encoder.loading import TOWERS, load_bundled
from rose_kit.evaluation import CachedEncoder, evaluate
from rose_kit.fusion import KnnClip, Method, ZeroShot
from rose_kit.metrics import mean_interval

DEVELOPMENT = 8_000_000  # first scene seed of the images that temperatures and captions' rates were chosen on
SUPPORT, QUERY = 8_500_000, 8_600_000  # of what is reported, on which nothing was chosen
SIZE = 160
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)  # 1 / temperature of zero-shot
Row = dict[str, Any]


class SharedImages(CachedEncoder):
    """The text tower of one encoder, and the cached images of another with the same vision tower."""

    def __init__(self, text: OpenClipEncoder, images: CachedEncoder) -> None:
        if text.fingerprint != images.fingerprint:
            raise ValueError(f"the vision tower is {text.fingerprint!r}, not {images.fingerprint!r}")
        vars(self).update(vars(images), encoder=text)


class LanguageBench:
    """The scenes of seen classes that every language is measured on; each image is encoded once.

    Args:
        pool: scenes that support images are drawn from; the linear probe learns from all of them.
        queries: scenes to answer, and as many others to choose temperatures on.
        progress: show progress bars.
    """

    def __init__(self, pool: int = 400, queries: int = 60, progress: bool = True) -> None:
        self.images, self.progress = CachedEncoder(load_encoder("bundled/clear")), progress
        self.support, self.query, self.development = (
            SceneDataset(count, first=first, size=SIZE)
            for count, first in ((pool, SUPPORT), (queries, QUERY), (queries, DEVELOPMENT))
        )

    def fixed_rows(self) -> list[Row]:
        """The linear probe on every annotated support image, and zero-shot with "bundled/clear"."""
        (probe,) = self._evaluate(self.images, {"linear probe": Supervised()})
        clear = self._zero_shot(self.images) | {"method": "zero-shot, bundled/clear"}
        return [{"method": "linear probe", "miou": probe["miou"]}, clear]

    def tower_rows(self, recipe: TextRecipe, shots: Sequence[int], towers: Path) -> list[Row]:
        """Zero-shot, kNN-CLIP and RNS with the text tower of a recipe; its seed draws the support images too.

        Args:
            recipe: of the text tower.
            shots: support images per class.
            towers: folder for text towers; one that is there already is not trained again.

        Returns:
            Rows {"dial", "draw", "method", "shots" (0 for zero-shot), "scale" (of zero-shot), "miou"}.
        """
        about = {"dial": recipe.language.dial, "draw": recipe.seed}
        encoder = SharedImages(tower(towers, recipe), self.images)
        methods = {"knn-clip": KnnClip(), "rns": RNS()}
        answers = self._evaluate(encoder, methods, shots=shots, seeds=[recipe.seed])
        rows = [{key: row[key] for key in ("method", "shots", "miou")} for row in answers]
        return [about | row for row in (self._zero_shot(encoder), *rows)]

    def _zero_shot(self, encoder: CachedEncoder) -> Row:
        """Zero-shot at the temperature that is best on the development scenes."""
        tried = self._evaluate(encoder, {s: ZeroShot(scale=s) for s in SCALES}, self.development)
        scale = max(tried, key=lambda row: row["miou"])["method"]
        (row,) = self._evaluate(encoder, {"zero-shot": ZeroShot(scale=scale)})
        return {"method": "zero-shot", "shots": 0, "scale": scale, "miou": row["miou"]}

    def _evaluate(
        self, encoder: CachedEncoder, methods: dict[Any, Method], query: SceneDataset | None = None, **draws
    ) -> list[Row]:
        windows = preferred_windows(encoder)
        options = {"support_windows": windows, "query_windows": windows, "progress": self.progress}
        options |= {"classes": SEEN, "shots": 1, "seeds": [0]} | draws
        return evaluate(self.support, query or self.query, encoder, methods, **options)


def tower(folder: Path, recipe: TextRecipe) -> OpenClipEncoder:
    """The encoder with the text tower of a recipe: the bundled one, one in the folder, or trained now."""
    own = folder / f"dial {recipe.language.dial:g}, draw {recipe.seed}"
    for made in (TOWERS["vague"], own):
        record = made / "recipe.json"
        if record.exists() and json.loads(record.read_text()) == asdict(recipe):
            return load_bundled(made)
    return train_text_tower(own, folder, recipe)


def gaps(rows: Sequence[Row]) -> pd.DataFrame:
    """Each method's mean over the draws, its 95 % interval, and how far it stays below the linear probe."""
    table = pd.DataFrame(rows)
    probe = table.miou[table.method == "linear probe"].item()
    lines = []
    for (dial, method, shots), own in table.groupby(["dial", "method", "shots"], sort=False):
        mean, half_width = mean_interval(own.miou)
        line = {"dial": dial, "method": method, "shots": int(shots), "draws": len(own)}
        lines.append(line | {"miou": mean, "half_width": half_width, "below the probe": probe - mean})
    return pd.DataFrame(lines)
