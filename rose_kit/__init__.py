"""Retrieval-augmented segmentation: annotated images in a memory help to label the pixels of new ones.

The public names stand in `__init__.pyi`; each is imported on its first use, so `import rose_kit` is quick.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
