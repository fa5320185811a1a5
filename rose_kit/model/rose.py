"""ROSE: perception, retrieval, fusion, prediction, as one trainable module (the article's forward pass)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rose_kit.data import atomic_write
from rose_kit.encoder import Encoder
from rose_kit.fusion.method import AnyQuery, Method
from rose_kit.memory import SupportMemory
from rose_kit.model.anchors import Anchors, anchor_inputs
from rose_kit.model.decoder import Decoder
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.pyramid import FrozenEncoder, Grid, pyramid
from rose_kit.model.retriever import MemoryRetriever
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary

WEIGHTS = Path(__file__).parent / "weights"  # trained heads that come with the kit, one folder a fusion


class ROSE(nn.Module):
    """A segmentation model that looks up before it decides, and learns to use what it finds.

    Only fusion, decoder, the mix of the anchors and a temperature are learned. The encoder is frozen and
    the memory is no parameter: rows come and go without training.

    Args:
        encoder: (B images) -> z (B, N, D), grid; a `FrozenEncoder`.
        retriever: z, exclude_images -> `RetrievedBatch`; a `MemoryRetriever`.
        fusion: z, retrieved -> f (B, N, D); a key of `FUSIONS`.

    Raises:
        ValueError: the retriever's memory was made with another encoder, or an unknown fusion.
    """

    def __init__(
        self, encoder: FrozenEncoder, retriever: MemoryRetriever, fusion: str = "similarity"
    ) -> None:
        super().__init__()
        if retriever.memory is not None:
            retriever.memory.check_encoder(encoder.encoder)
        self.encoder, self.retriever, self.fusion_name = encoder, retriever, fusion
        self.fusion = FUSIONS.make(fusion, dim=encoder.encoder.dim)
        self.decoder = Decoder(encoder.encoder.dim, encoder.scales)  # f, grid -> y (B, h, w, D)
        self.anchors = Anchors()
        self.scale = nn.Parameter(torch.tensor(3.0))  # log of 1 / temperature

    def forward(self, x: Sequence[Any], exclude_images: Sequence[str | None] | None = None) -> Tensor:
        """Images -> one D-vector per patch.

        Args:
            x: B images of one size, or their `FeatureMap`s.
            exclude_images: (B,) image of the memory that each must not see; in training, its own.

        Returns:
            (B, h, w, D) unit norm; `scores` compares them with classes.
        """
        z, grid = self.encoder(x)
        r = self.retriever(z, exclude_images)
        f = self.fusion(z, r)
        return self.decoder(f, grid)

    def scores(self, y: Tensor, vocabulary: Vocabulary, memory: SupportMemory | None) -> Tensor:
        """(..., D) -> (..., C) cosines to each class's nearest anchor, -inf without any.

        Raises:
            ValueError: the vocabulary has no text and the memory none of its classes.
        """
        parts, owner = anchor_inputs(vocabulary, memory)
        cosines = y @ self.anchors(torch.from_numpy(parts)).T  # (..., D) @ (D, A) -> (..., A)
        best = cosines.new_full((*y.shape[:-1], len(vocabulary)), -torch.inf)  # (..., C)
        return best.scatter_reduce(-1, torch.from_numpy(owner).expand_as(cosines), cosines, "amax")

    def probabilities(self, x: Sequence[Any], vocabulary: Vocabulary) -> np.ndarray:
        """Images -> (B, h, w, C) probabilities; see `answer`."""
        return self.answer(*self.encoder(x), vocabulary, self.retriever)

    @torch.no_grad()
    def answer(self, z: Tensor, grid: Grid, vocabulary: Vocabulary, retriever: MemoryRetriever) -> np.ndarray:
        """Encoded images, vocabulary -> probabilities, by softmax(scale * cosine).

        Nothing of the model changes, so that threads may share one. Only rows of the vocabulary's classes
        are looked up.

        Args:
            z, grid: from the encoder.
            vocabulary: C classes.
            retriever: of the memory to look up in, whose rows are also the anchors.

        Returns:
            (B, h, w, C) float32.

        Raises:
            ValueError: as for `scores`.
        """
        f = self.fusion(z, retriever(z, classes=vocabulary.names))
        scores = self.scores(self.decoder(f, grid), vocabulary, retriever.memory)
        return scores.mul(self.scale.exp()).softmax(-1).cpu().numpy()

    def save(self, folder: str | Path, **record: Any) -> None:
        """Write what was learned: `rose.safetensors` and, last, `rose.json` with how to rebuild it.

        Args:
            folder: made if it is not there.
            **record: whatever JSON holds, kept beside (seed, settings, losses).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        encoder = self.encoder.encoder
        about = {"fusion": self.fusion_name, "dim": encoder.dim, "fingerprint": encoder.fingerprint,
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
            fusion, trained_on, dim = about["fusion"], about["fingerprint"], about["dim"]
            scales, k = about["scales"], about["k"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__} {error}"
            raise ValueError(f"cannot read the model in {str(folder)!r}: {why}") from error
        if encoder is None:
            encoder = SimpleNamespace(dim=dim, fingerprint=trained_on)
        if trained_on != encoder.fingerprint:
            given = encoder.fingerprint
            raise ValueError(f"the model was trained on {trained_on!r}, the encoder is {given!r}")
        model = cls(FrozenEncoder(encoder, scales), MemoryRetriever(memory, k), fusion)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the weights in {str(folder)!r} do not fit {fusion!r}: {error}") from error
        return model.eval()


class RoseMethod(Method):
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
        """See `Method.predict`; the query must be a grid of patches. Threads may share a method.

        Raises:
            ValueError: regions or unordered features; or as for `ROSE.scores`.
        """
        query, model = Query.of(query), self.model
        if not isinstance(query.layout, tuple):
            raise ValueError("ROSE needs an image's patches in their grid, not regions or loose features")
        if query.features.shape[1] != self.dim:
            raise ValueError(f"ROSE was trained on features {self.dim} wide, not {query.features.shape[1]}")
        if memory is not None:
            memory.check_encoder(model.encoder.encoder)
        values = torch.from_numpy(query.features).unflatten(0, query.layout)[None]  # (1, h, w, D)
        retriever = MemoryRetriever(memory if self.use_memory else None, model.retriever.k)
        z = pyramid(values, model.encoder.scales)
        probabilities = model.answer(z, query.layout, vocabulary, retriever)
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
    FUSIONS.find(fusion)
    return RoseMethod(ROSE.load(fusion), use_memory)
