"""Regions: what may take the place of patches. SLIC by default, SAM where its weights are at hand."""

from rose_kit.regions.base import Regions, make_regions
from rose_kit.regions.cache import CachedRegions, cache_folder
from rose_kit.regions.slic import Slic

__all__ = ["CachedRegions", "Regions", "Slic", "cache_folder", "make_regions"]
