"""What RNS is compared with: offline and supervised heads, and an encoder that is tuned with masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from test_fusion import predicted

from experiments.finetune import dense_loss
from rose_kit import SupportMemory, Vocabulary, unit
from rose_kit.adapter import OfflineLinear, OfflinePixels

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds. kite")


def clouds(seed: int = 0, images: int = 6, each: int = 30):
    """Three overlapping classes: labelled patches per image, and a memory of their class means."""
    rng = np.random.default_rng(seed)
    centres, support, vectors = np.eye(3, 8), [], []
    for i in range(images):
        labels = rng.integers(0, 3, each)
        features = unit(centres[labels] + rng.normal(0, 0.5, (each, 8)))
        labels[:2] = (-1, 255)  # neither is a class here
        support.append((features, labels, f"image {i}"))
        vectors += [unit(features[labels == c].mean(0)) for c in range(3)]
    ids = [image_id for _, _, image_id in support for _ in range(3)]
    memory = SupportMemory.from_prototypes(vectors, list("abc") * images, ids)
    return support, memory, Vocabulary(list("abc"))


@pytest.mark.parametrize("method", [OfflineLinear, OfflinePixels])
def test_offline_heads_are_scikit_learns_logistic_regression_and_know_their_classes_by_name(method):
    """On prototypes, or on every labelled patch."""
    support, memory, vocabulary = clouds()
    x, y = memory.vectors, memory.class_names
    if method is OfflinePixels:
        x, y = (np.concatenate(column) for column in zip(*(s[:2] for s in support), strict=True))
        x, y = x[np.isin(y, (0, 1, 2))], y[np.isin(y, (0, 1, 2))]
    features = support[0][0]
    head = method(strength=10.0).fit(memory, vocabulary, support)
    p = predicted(head, features, memory, vocabulary)
    twin = LogisticRegression(C=10.0, max_iter=5000, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(p, twin.predict_proba(features), atol=5e-3)
    q = predicted(head, features, memory, Vocabulary(["zebra", "c", "a"]))
    expected = p[:, [2, 0]] / p[:, [2, 0]].sum(1, keepdims=True)
    np.testing.assert_allclose(q, np.c_[np.zeros(len(p)), expected], atol=1e-6)


@pytest.mark.parametrize(("method", "best"), [(OfflineLinear, 10.0), (OfflinePixels, 100.0)])
def test_the_strength_is_the_one_that_left_out_images_ask_for(method, best, monkeypatch):
    """One strength answers rightly, the others always with the first class; no image is on both sides."""
    support, memory, vocabulary = clouds(images=8)
    right = {x.tobytes(): y for f, labels, _ in support for x, y in zip(f, labels, strict=True)}
    trained = []

    def train(self, samples, strength):
        trained.append(set(samples.images))
        return lambda x: np.eye(3)[[right[row.tobytes()] if strength == best else 0 for row in x]]

    monkeypatch.setattr(OfflineLinear, "train", train)
    assert method().fit(memory, vocabulary, support).fitted_strength == best
    assert [len(images) for images in trained] == [4] * 4 + [8]  # each strength on half, the best on all
    assert method(strength=0.5).fit(memory, vocabulary, support).fitted_strength == 0.5


# --- an encoder tuned with masks ------------------------------------------------------------------------


def test_dense_loss_is_cross_entropy_where_patches_are_pure_and_ignores_what_is_unlabelled():
    torch.manual_seed(0)
    patches, text = F.normalize(torch.randn(2, 3, 8), dim=-1), F.normalize(torch.randn(4, 8), dim=-1)
    labels = torch.tensor([[0, 3, -1], [2, -1, 1]])
    target = (labels[..., None] == torch.arange(4)).float()
    expected = F.cross_entropy((20 * patches @ text.T).flatten(0, 1), labels.flatten(), ignore_index=-1)
    torch.testing.assert_close(dense_loss(patches, text, target, 20.0), expected, atol=1e-5, rtol=0)
