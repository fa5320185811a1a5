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
from experiments.claims.benchmark import SharedImages
from experiments.claims.tuned import NO_TEXT, tuned_method
from rose_kit.adapter.offline import Supervised
from rose_kit.encoder import OpenClipEncoder, load_encoder, preferred_windows
from rose_kit.encoder.loading import TOWERS, load_bundled
from rose_kit.evaluation import CachedEncoder, MissingSupport, evaluate
from rose_kit.fusion import Method, ZeroShot
from rose_kit.metrics import mean_interval
from rose_kit.model import methods

DEVELOPMENT = 8_000_000  # first scene seed of the images that temperatures and captions' rates were chosen on
SUPPORT, QUERY = 8_700_000, 8_800_000  # of what is reported, on which nothing was chosen
SIZE = 160
TUNED = Path(__file__).parent / "results/tuning.csv"  # settings of all methods, chosen with "bundled/vague"
AT_DEFAULTS = " at defaults"  # after a method's name: not tuned
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)  # 1 / temperature of zero-shot
Row = dict[str, Any]


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

    def tower_rows(
        self, recipe: TextRecipe, names: Sequence[str], shots: Sequence[int], towers: Path
    ) -> list[Row]:
        """Zero-shot and other methods with the text tower of a recipe; its seed draws the support images too.

        Args:
            recipe: of the text tower.
            names: of methods, with the settings of `TUNED`; "NAME at defaults" is not tuned, and
                "NAME without text" has the text of no class.
            shots: support images per class.
            towers: folder for text towers; one that is there already is not trained again.

        Returns:
            Rows {"dial", "draw", "method", "shots" (0 for zero-shot), "scale" (of zero-shot), "miou"}.
        """
        about = {"dial": recipe.language.dial, "draw": recipe.seed}
        encoder = SharedImages(tower(towers, recipe), self.images)
        rows = [self._zero_shot(encoder)]
        for suffix, missing in (("", MissingSupport()), (NO_TEXT, MissingSupport(text=1.0))):
            made = {name: method(name) for name in names if name.endswith(NO_TEXT) == bool(suffix)}
            draws = {"shots": shots, "seeds": [recipe.seed], "missing": missing}
            answers = self._evaluate(encoder, made, **draws) if made else []
            rows += [{key: row[key] for key in ("method", "shots", "miou")} for row in answers]
        return [about | row for row in rows]

    def _zero_shot(self, encoder: CachedEncoder) -> Row:
        """Zero-shot at the temperature that is best on the development scenes."""
        tried = self._evaluate(encoder, {s: ZeroShot(scale=s) for s in SCALES}, self.development)
        scale = max(tried, key=lambda row: row["miou"])["method"]
        (row,) = self._evaluate(encoder, {"zero-shot": ZeroShot(scale=scale)})
        return {"method": "zero-shot", "shots": 0, "scale": scale, "miou": row["miou"]}

    def _evaluate(
        self, encoder: CachedEncoder, made: dict[Any, Method], query: SceneDataset | None = None, **draws
    ) -> list[Row]:
        windows = preferred_windows(encoder)
        options = {"support_windows": windows, "query_windows": windows, "progress": self.progress}
        options |= {"classes": SEEN, "shots": 1, "seeds": [0]} | draws
        return evaluate(self.support, query or self.query, encoder, made, **options)


def method(name: str) -> Method:
    """A method with the setting chosen for it, or "NAME at defaults".

    Raises:
        ValueError: it was not tuned, or is unknown.
    """
    if name.endswith(AT_DEFAULTS):
        return methods.make(name.removesuffix(AT_DEFAULTS))
    return tuned_method(TUNED, name, "bundled/vague")


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


def gains(rows: Sequence[Row], method: str = "rns") -> pd.DataFrame:
    """What a method has over each other at the same dial, draw and number of shots, with 95 % intervals."""
    table = pd.DataFrame(rows).dropna(subset="dial").astype({"shots": int})
    keys, lines = ["dial", "draw", "shots"], []
    own = table[table.method == method].set_index(keys).miou
    for (dial, other), rival in table[table.method != method].groupby(["dial", "method"], sort=False):
        scores = rival.set_index(keys).miou
        for shots in own.loc[dial].index.unique("shots"):
            ours = own.loc[dial].xs(shots, level="shots")
            theirs = scores.loc[dial].xs(shots if shots in rival.shots.values else 0, level="shots")
            gain, half_width = mean_interval((ours - theirs).loc[ours.index])
            lines.append(
                {"dial": dial, "over": other, "shots": shots, "gain": gain, "half_width": half_width}
            )
    return pd.DataFrame(lines)
