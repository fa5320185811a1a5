"""The support memory: class prototypes of annotated pictures, searched, stored and shown."""

from rose_kit.memory.memory import Hits, Rows, SupportMemory
from rose_kit.memory.store import MemoryFormatError

__all__ = ["Hits", "MemoryFormatError", "Rows", "SupportMemory"]
