"""What makes the pipeline quick gives the same answers: pruned upsampling, and every solver's minimum."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit.fusion.zero_shot import softmax
from rose_kit.segmenter import paint, soften, upsample_scores
from rose_kit.types import FeatureMap, Query


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sharpness=st.sampled_from([0.5, 5.0, 50.0]),
    grid=st.sampled_from([(1, 1), (2, 5), (6, 7)]),
    image=st.sampled_from([None, (20, 23), (61, 90)]),
)
def test_pruned_upsampling_labels_as_all_classes_would(seed, sharpness, grid, image):
    rng = np.random.default_rng(seed)
    encoded = grid[0] * 8 - 3, grid[1] * 8
    probabilities = softmax(sharpness * rng.normal(size=(grid[0] * grid[1], 9))).astype(np.float32)
    fm = FeatureMap(np.zeros((*grid, 1), np.float32), 8, encoded, image or encoded)
    labels, scores = paint(probabilities, Query(np.ones((len(probabilities), 1)), grid), fm)
    soft = soften(probabilities).T.reshape(-1, *grid)  # (C, h, w)
    np.testing.assert_array_equal(labels, upsample_scores(soft, fm).argmax(0))
    np.testing.assert_array_equal(scores, probabilities.T.reshape(-1, *grid))
