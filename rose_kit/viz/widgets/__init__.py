"""Widgets on plain ipywidgets: each a thin shell around a class that does the same in code."""

from rose_kit.viz.widgets.explorer import EvidenceExplorer, Explorer
from rose_kit.viz.widgets.playground import FusionPlayground, Playground
from rose_kit.viz.widgets.teach import TeachByExample, Teacher

__all__ = ["EvidenceExplorer", "Explorer", "FusionPlayground", "Playground", "TeachByExample", "Teacher"]
