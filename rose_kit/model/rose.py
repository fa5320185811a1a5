"""ROSE: perception, retrieval, fusion, prediction, as one trainable module (the article's forward pass)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rose_kit.data import atomic_write
from rose_kit.encoder import Encoder
from rose_kit.fusion.method import AnyQuery, StatelessMethod
from rose_kit.memory import SupportMemory
from rose_kit.model.anchors import Anchors, best_of
from rose_kit.model.decoder import Decoder
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.pyramid import FrozenEncoder
from rose_kit.model.retriever import MemoryRetriever
from rose_kit.registry import register_method
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary

WEIGHTS = Path(__file__).parent / "weights"  # trained heads that come with the kit, one folder a fusion


class ROSE(nn.Module):
    """A segmentation model that looks up before it decides, and learns to use what it finds.

    Only fusion, decoder, the mix of the anchors and a temperature are learned. The encoder is frozen and
    the memory is no parameter: rows come and go without training.

    Args:
        encoder: (B pictures) -> z (B, N, D), grid; a `FrozenEncoder`.
        retriever: z, exclude_images -> `Retrieved`; a `MemoryRetriever`.
        fusion: z, retrieved -> f (B, N, D); a key of `FUSIONS` or a module.
        decoder: f, grid -> y (B, h, w, D); by default a `Decoder` for the encoder's scales.

    Raises:
        ValueError: the retriever's memory was made with another encoder, or an unknown fusion.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        retriever: MemoryRetriever,
        fusion: nn.Module | str = "similarity",
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        dim, memory = encoder.encoder.dim, getattr(retriever, "memory", None)
        if memory is not None:
            memory.check_encoder(encoder.encoder)
        self.encoder, self.retriever = encoder, retriever
        self.fusion = FUSIONS.make(fusion, dim=dim) if isinstance(fusion, str) else fusion
        self.decoder = Decoder(dim, encoder.scales) if decoder is None else decoder
        self.anchors = Anchors()
        self.scale = nn.Parameter(torch.tensor(3.0))  # log of 1 / temperature

    def forward(self, x: Sequence[Any], exclude_images: Sequence[str | None] | None = None) -> Tensor:
        """Pictures -> one D-vector per patch.

        Args:
            x: B pictures of one size, or their `FeatureMap`s.
            exclude_images: (B,) image of the memory that each must not see; in training, its own.

        Returns:
            (B, h, w, D) unit norm; `scores` compares them with classes.
        """
        z, grid = self.encoder(x)
        r = self.retriever(z, exclude_images)
        f = self.fusion(z, r)
        return self.decoder(f, grid)

    def scores(self, y: Tensor, vocabulary: Vocabulary) -> np.ndarray:
        """(B, h, w, D) -> (B, h, w, C) cosines to each class's nearest anchor, -inf without any."""
        anchors, owner = self.anchors.of(vocabulary, self.retriever.memory)
        cosines = y @ anchors.to(y.device).T  # (B, h, w, A)
        return best_of(cosines, owner.to(y.device), len(vocabulary)).detach().cpu().numpy()

    @torch.no_grad()
    def probabilities(self, x: Sequence[Any], vocabulary: Vocabulary) -> np.ndarray:
        """Pictures, vocabulary -> (B, h, w, C) probabilities, by softmax(scale * cosine).

        Only rows of the vocabulary's classes are looked up.

        Raises:
            ValueError: the vocabulary has no text and the memory none of its classes.
        """
        asked, self.retriever.classes = self.retriever.classes, vocabulary.names
        try:
            scores = self.scores(self(x), vocabulary)
        finally:
            self.retriever.classes = asked
        return torch.from_numpy(scores).mul(self.scale.exp()).softmax(-1).numpy()

    def save(self, folder: str | Path, **record: Any) -> None:
        """Write what was learned: `rose.safetensors` and, last, `rose.json` with how to rebuild it.

        Args:
            folder: made if it is not there.
            **record: whatever JSON holds, kept beside (seed, settings, losses).

        Raises:
            ValueError: the fusion has no name in `FUSIONS`, so that nobody could rebuild it.
        """
        names = [name for name, made in FUSIONS.items() if type(self.fusion) is made]
        if not names:
            raise ValueError(f"{type(self.fusion).__name__} is not in FUSIONS: {', '.join(FUSIONS)}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        encoder = self.encoder.encoder
        about = {"fusion": names[0], "dim": encoder.dim, "fingerprint": encoder.fingerprint,
                 "scales": self.encoder.scales, "k": self.retriever.k, "record": record}  # fmt: skip
        state = {key: value.detach().contiguous() for key, value in self.state_dict().items()}
        with atomic_write(folder / "rose.safetensors") as beside:
            save_file(state, beside)
        with atomic_write(folder / "rose.json") as beside:
            beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, folder: str | Path, encoder: Encoder | None = None, memory: SupportMemory | None = None
    ) -> ROSE:
        """Rebuild a trained model around an encoder and a memory.

        Args:
            folder: what `save` wrote; or a name in `FUSIONS` for the trained head that comes with the kit.
            encoder: the one it was trained on; None: the model answers about feature maps only.
            memory: where it looks up; any of that encoder's.

        Raises:
            ValueError: a file is missing or damaged, or the model was trained on another encoder.
        """
        folder = WEIGHTS / folder if folder in FUSIONS else Path(folder)
        try:
            about = json.loads((folder / "rose.json").read_text(encoding="utf-8"))
            state = load_file(folder / "rose.safetensors")
            trained_on, k = about["fingerprint"], about["k"]
            fusion, scales, dim = about["fusion"], about["scales"], about["dim"]
        except (
            OSError,
            SafetensorError,
            json.JSONDecodeError,
            KeyError,
            TypeError,
            UnicodeDecodeError,
        ) as error:
            raise ValueError(
                f"cannot read the model in {str(folder)!r}: {type(error).__name__} {error}"
            ) from error
        encoder = _Features(dim, trained_on) if encoder is None else encoder
        if trained_on != encoder.fingerprint:
            raise ValueError(
                f"the model was trained on {trained_on!r}, the encoder is {encoder.fingerprint!r}"
            )
        model = cls(FrozenEncoder(encoder, scales), MemoryRetriever(memory, k), fusion)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"{str(folder / 'rose.safetensors')!r} does not fit {fusion!r}: {error}"
            ) from error
        return model.eval()


@dataclass(frozen=True)
class _Features:
    """What stands for an encoder whose features are given: its width and its fingerprint."""

    dim: int
    fingerprint: str


class RoseMethod(StatelessMethod):
    """A trained ROSE where the kit takes a method: `Segmenter(encoder, memory, RoseMethod(model))`.

    Args:
        model: trained; it looks up in whatever memory `predict` is given.
        use_memory: False answers without looking anything up, by text anchors alone.
    """

    def __init__(self, model: ROSE, use_memory: bool = True) -> None:
        self.model, self.use_memory = model, use_memory
        self.dim, self.fingerprint = model.encoder.encoder.dim, model.encoder.encoder.fingerprint

    needs_grid = True  # patches in their grid: regions and loose features are refused

    def __deepcopy__(self, memo: dict) -> RoseMethod:
        return RoseMethod(self.model, self.use_memory)  # what is trained stays as it is: copies share it

    def __repr__(self) -> str:
        return f"RoseMethod({type(self.model.fusion).__name__}, use_memory={self.use_memory})"

    def predict(
        self,
        query: AnyQuery,
        memory: SupportMemory | None,
        vocabulary: Vocabulary,
        *,
        initial_weight: np.ndarray | None = None,
    ) -> Prediction:
        """See `Method.predict`; the query must be a grid of patches.

        Raises:
            ValueError: regions or unordered features; or as `ROSE.probabilities`.
        """
        query = Query.of(query)
        if not isinstance(query.layout, tuple):
            raise ValueError(
                "ROSE needs the patches of a picture in their grid, not regions or loose features"
            )
        if query.features.shape[1] != self.dim:
            raise ValueError(f"ROSE was trained on features {self.dim} wide, not {query.features.shape[1]}")
        if memory is not None:
            memory.check_encoder(self.model.encoder.encoder)
        size = query.layout
        patches = FeatureMap(query.features.reshape(*size, -1), 1, size, size)
        kept, self.model.retriever.memory = self.model.retriever.memory, memory if self.use_memory else None
        try:
            probabilities = self.model.probabilities([patches], vocabulary)
        finally:
            self.model.retriever.memory = kept
        return Prediction(probabilities.reshape(-1, len(vocabulary)))


@register_method("rose")
def trained_rose(fusion: str = "similarity", use_memory: bool = True) -> RoseMethod:
    """A trained head that comes with the kit, as a method by name.

    Args:
        fusion: a key of `FUSIONS`.
        use_memory: see `RoseMethod`.

    Raises:
        ValueError: there is no head of that name.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"unknown fusion {fusion!r}. Known: {', '.join(FUSIONS)}")
    return RoseMethod(ROSE.load(fusion), use_memory)
