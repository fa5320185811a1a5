"""The public names as a program uses them, for the type checker: `make test` runs mypy on this file.

Nobody runs it. All names are imported lazily, and still the checker knows what each is, and what is no name.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import rose_kit as kit


def segment(image: str, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    encoder = kit.load_encoder("bundled", device="cpu")
    assert_type(encoder, kit.Encoder)
    features = encoder.encode_image(kit.read_image(image))
    assert_type(features, kit.FeatureMap)
    memory = kit.SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    assert_type(memory.add("photo", features, mask, {1: "bus"}), NDArray[np.int64])
    assert_type(memory.search(features.flat(), k=4), kit.Hits)
    segmenter = kit.Segmenter(encoder, memory, kit.RNS(k=8), windows=kit.Windows(448))
    answer = segmenter(image, ["bus", "background|sky|road"])
    assert_type(answer, kit.Segmentation)
    assert_type(answer.evidence, kit.Evidence | None)
    assert_type(segmenter.segment_batch([image, image], kit.Vocabulary(["bus"])), list[kit.Segmentation])
    return answer.overlay()


def evaluate(pairs: Any) -> None:
    data = kit.TorchDataset(pairs, {0: "sky", 1: "bus"})
    assert_type(data[0], kit.Sample)
    assert_type(kit.FolderDataset("photos").classes, dict[int, str])
    board = kit.compare([kit.KnnClip(), kit.Freeda(weight=0.5), "rns"], (data, data), shots=[1, 5])
    assert_type(board.table["miou"].max() > 1, Any)
    assert_type(kit.mean_iou(kit.confusion_matrix([0], [0], 2)), float)


def misspelt() -> None:
    kit.Segmentor()  # type: ignore[attr-defined]
    kit.RNS(neighbours=4)  # type: ignore[call-arg]
    kit.load_encoder(4)  # type: ignore[arg-type]
