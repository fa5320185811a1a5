"""ROSE as one trainable module: perception, retrieval, fusion and prediction, as in the article."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rose_kit.data import DataError, atomic_write
from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method
from rose_kit.fusion.retrieval import restrict
from rose_kit.memory import SupportMemory
from rose_kit.memory.index import Where
from rose_kit.model.decoder import Anchors, Decoder, pyramid
from rose_kit.model.fusion import nearest_rows
from rose_kit.registry import errors_as, fusions, register_method
from rose_kit.types import Prediction, Query, Vocabulary, check_positive, unknown_name

WEIGHTS = Path(__file__).parent / "weights"
HEADS = tuple(sorted(folder.name for folder in WEIGHTS.iterdir()))  # trained heads that come with the kit


class ROSE(nn.Module):
    """A head on frozen features that looks up before it decides, and learns to use what it retrieves.

    Learned are the fusion, the decoder, the mix of the anchors and a temperature. The encoder is frozen, so
    it stays outside: an image's features are made once. The memory is given at each call, so its rows come
    and go without training.

    Args:
        dim: D, the width of the features.
        fingerprint: of the encoder whose features these are; None accepts the memory of any.
        fusion: a name in `rose_kit.registry.fusions`.
        k: rows per patch.

    Raises:
        ValueError: `dim` or `k` is not positive, or the fusion is unknown.
    """

    def __init__(
        self, dim: int, fingerprint: str | None = None, fusion: str = "similarity", k: int = 8
    ) -> None:
        super().__init__()
        check_positive(dim=dim, k=k)
        self.dim, self.fingerprint, self.k, self.fusion_name = dim, fingerprint, k, fusion
        self.fusion = fusions.make(fusion, dim=dim)
        self.decoder = Decoder(dim)
        self.anchors = Anchors()
        self.scale = nn.Parameter(torch.tensor(3.0))  # log of 1 / temperature

    def forward(self, x: Tensor, vocabulary: Vocabulary, memory: Memory) -> Tensor:
        """The features of one image -> the logits of its patches, in training and in prediction.

        Nothing in the model changes, so threads may share one.

        Args:
            x: (h, w, D) float32 features of the frozen encoder, unit norm.
            vocabulary: C classes.
            memory: the rows to retrieve, which are also the anchors; None or empty leaves the text.

        Returns:
            (h, w, C) float32; -inf for a class that has neither text nor a row.

        Raises:
            ValueError: the vocabulary has no text and the memory none of its classes, or widths differ.
        """
        memory = SupportMemory(self.dim) if memory is None else memory
        z = pyramid(x)  # perception: (N, D), the patches and larger squares
        r = nearest_rows(z, memory, vocabulary, self.k)  # retrieval: (N, K, D)
        f = self.fusion(z, r)  # fusion: (N, D)
        return self.logits(self.decoder(f, x.shape[:2]), vocabulary, memory)  # prediction: (h, w, C)

    def logits(self, y: Tensor, vocabulary: Vocabulary, memory: SupportMemory) -> Tensor:
        """(..., D) unit norm -> (..., C): the cosine to each class's nearest anchor / temperature.

        Raises:
            ValueError: as `forward`.
        """
        anchors, owner = self.anchors(vocabulary, memory)
        cosines = y @ anchors.T  # (..., D) @ (D, A) -> (..., A)
        absent = cosines.new_full((*y.shape[:-1], len(vocabulary)), -torch.inf)  # (..., C)
        return absent.scatter_reduce(-1, owner.expand_as(cosines), self.scale.exp() * cosines, "amax")

    def save(self, folder: str | Path, **record: object) -> None:
        """Write what was learned, `rose.safetensors`, and how to rebuild the model, `rose.json`.

        Args:
            folder: made if it is not there.
            **record: whatever JSON holds, stored with it (seed, settings, losses).
        """
        folder = Path(folder)
        about = {"fusion": self.fusion_name, "dim": self.dim, "fingerprint": self.fingerprint,
                 "k": self.k, "record": record}  # fmt: skip
        with atomic_write(folder / "rose.safetensors") as beside:
            save_file(self.state_dict(), beside)
        with atomic_write(folder / "rose.json") as beside:
            beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> ROSE:
        """Rebuild a trained model.

        Args:
            folder: what `save` wrote; or a name in `HEADS`, for a head that comes with the kit.

        Raises:
            ValueError: there is no such folder or head, or a file is missing or damaged (a DataError).
        """
        path = WEIGHTS / folder if folder in HEADS else Path(folder)
        if not path.is_dir():
            raise unknown_name("trained ROSE (neither a folder nor a name)", str(folder), HEADS)
        with errors_as(DataError, f"cannot read the model in {str(path)!r}"):
            about = json.loads((path / "rose.json").read_text(encoding="utf-8"))
            model = cls(about["dim"], about["fingerprint"], about["fusion"], about["k"])
            model.load_state_dict(load_file(path / "rose.safetensors"))
        return model.eval()


@dataclass
class RoseMethod(Method):
    """A trained ROSE where the kit takes a method: `Segmenter(encoder, memory, RoseMethod(model))`.

    Args:
        model: trained; it looks up in whatever memory `predict` is given.
        use_memory: False answers by the text alone, without looking anything up.
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    model: ROSE
    use_memory: bool = True
    where: Where | None = None
    needs_grid = True  # it answers the patches of an image, neither regions nor loose features

    def __post_init__(self) -> None:
        self.dim, self.fingerprint = self.model.dim, self.model.fingerprint

    @torch.no_grad()
    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`; the query must be a grid of patches. Threads may share a method.

        Raises:
            ValueError: regions or loose features, another width or encoder, or as `ROSE.forward`.
        """
        query = Query.of(query)
        if not isinstance(query.layout, tuple):
            raise ValueError("ROSE needs an image's patches in their grid, not regions or loose features")
        if query.features.shape[1] != self.dim:
            raise ValueError(f"ROSE was trained on features {self.dim} wide, not {query.features.shape[1]}")
        if memory is not None:
            memory.check_encoder(self.model)
        memory = restrict(memory if self.use_memory else None, self.where)
        x = query.tensor.unflatten(0, query.layout)  # (h, w, D)
        if self.model.scale.device != x.device:  # it answers where the features are; the caller's model stays
            self.model = copy.deepcopy(self.model).to(x.device)
        p = self.model(x, vocabulary, memory).softmax(-1)  # (h, w, D) -> (h, w, C)
        return Prediction(p.flatten(0, 1))


@register_method("rose")
def load_rose(fusion: str = "similarity", use_memory: bool = True, where: Where | None = None) -> RoseMethod:
    """A trained ROSE as a method by name.

    Args:
        fusion: of a head that comes with the kit; or the folder of a model that `ROSE.save` wrote.
        use_memory, where: see `RoseMethod`.

    Raises:
        ValueError: as `ROSE.load`.
    """
    return RoseMethod(ROSE.load(fusion), use_memory, where)
