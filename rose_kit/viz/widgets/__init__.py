"""Widgets for the notebook; the methods of each do in code what clicks do."""

from rose_kit.viz.widgets.explorer import EvidenceExplorer
from rose_kit.viz.widgets.playground import FusionPlayground
from rose_kit.viz.widgets.teach import TeachByExample

__all__ = ["EvidenceExplorer", "FusionPlayground", "TeachByExample"]
