"""Regions: what may take the place of patches. SLIC by default, SAM where its weights are at hand."""

from rose_kit.regions.base import Regions, make_regions
from rose_kit.regions.sam import Sam, load_sam
from rose_kit.regions.slic import Slic

__all__ = ["Regions", "Sam", "Slic", "load_sam", "make_regions"]
