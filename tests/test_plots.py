"""Figures: what is drawn is what was given."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from rose_kit import Evidence, FeatureMap, SupportMemory, unit
from rose_kit.fusion import pooled_evidence
from rose_kit.viz import plots
from rose_kit.viz.export import strongest_prototypes

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def evidence(*rows) -> Evidence:
    query, ids, names, weight = zip(*rows, strict=True)
    return Evidence(np.array(query), np.array(ids), np.array(names), np.array(weight, np.float32))


def test_evidence_of_several_patches_is_their_mean_and_loses_nothing():
    rows = [(0, 7, "bus", 1.0), (0, -1, "bus", 2.0), (1, 7, "bus", -4.0), (1, -1, "sky", 3.0)]
    pooled = pooled_evidence(evidence(*rows, (2, 9, "sky", 9.0)), [1, 0])
    keys = zip(pooled.prototype_id.tolist(), pooled.class_name.tolist(), strict=True)
    weights = dict(zip(keys, pooled.weight.tolist(), strict=True))
    assert weights == {(7, "bus"): -1.5, (-1, "bus"): 1.0, (-1, "sky"): 1.5}
    assert (np.diff(np.abs(pooled.weight)) <= 0).all() and (pooled.query == 0).all()
    effects = np.array([[0.5, -1.0, 9.0]], np.float32)  # of prototype 7 on all three patches
    whole = replace(evidence(*rows[1:]), leave_out=lambda ids: effects[[0] * len(ids)])
    asked = pooled_evidence(whole, [1, 0]).with_effects()  # where patch 0 does not list it
    assert dict(zip(asked.prototype_id, asked.effect, strict=True))[7] == -0.25
    assert np.isnan(pooled_evidence(whole.with_effects(), [1, 0]).effect).all()
    listed = pooled_evidence(replace(whole, query=whole.query * 0 + 1).with_effects(), [1])
    assert listed.effect[listed.prototype_id == 7] == -1 and np.isnan(listed.effect).sum() == 2
    with pytest.raises(ValueError, match=r"\[5\]"):
        pooled_evidence(evidence(*rows), [5])


def test_evidence_is_shown_strongest_first_with_its_sign():
    memory = SupportMemory(8)
    mask = np.arange(32)[None].repeat(24, axis=0) // 16
    for i in range(2):  # ids 0 and 1, then 2 and 3, which have no thumbnail
        features = FeatureMap(unit(RNG.normal(size=(3, 4, 8))), 8, (24, 32), (24, 32))
        memory.add(f"image-{i}", features, mask, {0: "sky", 1: "bus"}, thumbnail=None if i else IMAGE)
    given = evidence((0, 0, "sky", -0.5), (0, 3, "bus", 2.0), (0, -1, "bus", 9.0), (0, 1, "bus", 1.0))
    region = np.ones((24, 32), bool)
    fig = plots.evidence_figure(IMAGE, region, given, memory, "bus", count=4)
    assert [ax.get_title() for ax in fig.axes if ax.get_title()] == ["answer: bus", "bus", "bus", "sky"]
    (bars,) = (ax.patches for ax in fig.axes if ax.patches)
    assert [bar.get_height() for bar in bars] == [2.0, 1.0, -0.5, 9.0]  # the last is text and the rest
    colours = [plots.BLUE, plots.BLUE, plots.ORANGE, plots.BLUE]
    assert [bar.get_facecolor() for bar in bars] == [to_rgba(c) for c in colours]
    assert sum(bool(ax.images) for ax in fig.axes) == 3
    asked = replace(given, effect=np.array([np.nan, -3.0, np.nan, -np.inf], np.float32))
    fig = plots.evidence_figure(IMAGE, region, asked, memory, "bus", count=4)
    weights, effects = ([bar.get_height() for bar in ax.patches] for ax in fig.axes if ax.patches)
    assert weights == [2.0, 1.0, -0.5, 9.0] and effects == [-3.0]  # what is not finite has no bar
    assert [to_rgba(plots.BLUE)] == [bar.get_facecolor() for bar in fig.axes[-1].patches]
    json.dumps(strongest_prototypes(asked, memory), allow_nan=False)
    fig = plots.evidence_figure(IMAGE, region, evidence((0, -1, "bus", 1.0)), memory, "bus")
    assert [bar.get_height() for ax in fig.axes for bar in ax.patches] == [1.0]
