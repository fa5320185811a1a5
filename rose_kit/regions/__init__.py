"""Regions: what may take the place of patches. SLIC by default, SAM where its weights are at hand."""

from rose_kit.regions.base import Regions, make_regions
from rose_kit.regions.cache import CachedRegions, cache_folder
from rose_kit.regions.checkpoint import load_sam
from rose_kit.regions.sam import Sam
from rose_kit.regions.slic import Slic

__all__ = ["CachedRegions", "Regions", "Sam", "Slic", "cache_folder", "load_sam", "make_regions"]
