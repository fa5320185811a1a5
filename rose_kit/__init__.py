"""Retrieval-augmented segmentation: annotated images in a memory help to label the pixels of new ones."""

import importlib

_HOME = {
    "types": "FeatureMap Vocabulary Query Prediction Evidence Segmentation IGNORE unit",
    "pooling": "pool_masks",
    "registry": "register_dataset register_encoder register_fusion register_method register_provider "
    "register_regions encoders load_plugin",
    "metrics": "confusion_matrix iou mean_iou giou ciou",
    "data": "Sample FolderDataset DataError read_image sample_support",
    "encoder": "Encoder load_encoder OpenClipEncoder HandcraftedEncoder Windows",
    "memory": "SupportMemory Hits",
    "regions": "Regions Slic Sam load_sam make_regions",
    "fusion": "Method ZeroShot KnnClip Freeda",
    "adapter": "RNS OfflineLinear methods",
    "model": "ROSE RoseMethod",
    "segmenter": "Segmenter",
    "evaluation": "evaluate",
    "viz.export": "read_coco write_coco write_folder",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str):
    """Import a public name on first use, so that `import rose_kit` stays quick."""
    if name not in _WHERE:
        raise AttributeError(f"rose_kit has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"rose_kit.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
