"""Class prototypes of annotated images: the memory that holds them, its search and its folder."""

from rose_kit.memory.index import Index
from rose_kit.memory.memory import SupportMemory
from rose_kit.memory.prototypes import Hits, Prototypes
from rose_kit.memory.storage import MemoryFormatError

__all__ = ["Hits", "Index", "MemoryFormatError", "Prototypes", "SupportMemory"]
