"""The public names, for type checkers and for the lazy import in `__init__.py`."""

from .types import (
    Evidence as Evidence,
    FeatureMap as FeatureMap,
    IGNORE as IGNORE,
    Prediction as Prediction,
    Query as Query,
    Segmentation as Segmentation,
    Vocabulary as Vocabulary,
    unit as unit,
)
from .pooling import (
    pool_masks as pool_masks,
)
from .registry import (
    encoders as encoders,
    load_plugin as load_plugin,
    register_dataset as register_dataset,
    register_encoder as register_encoder,
    register_fusion as register_fusion,
    register_language_model as register_language_model,
    register_method as register_method,
    register_provider as register_provider,
    register_regions as register_regions,
    register_segmenter as register_segmenter,
)
from .metrics import (
    ciou as ciou,
    confusion_matrix as confusion_matrix,
    giou as giou,
    iou as iou,
    mean_iou as mean_iou,
)
from .data import (
    DataError as DataError,
    FolderDataset as FolderDataset,
    Sample as Sample,
    TorchDataset as TorchDataset,
    read_image as read_image,
    sample_support as sample_support,
)
from .encoder import (
    Encoder as Encoder,
    HandcraftedEncoder as HandcraftedEncoder,
    OpenClipEncoder as OpenClipEncoder,
    Windows as Windows,
    load_encoder as load_encoder,
)
from .memory import (
    Hits as Hits,
    SupportMemory as SupportMemory,
)
from .regions import (
    Felzenszwalb as Felzenszwalb,
    Regions as Regions,
    Sam as Sam,
    Sam2 as Sam2,
    Slic as Slic,
    load_sam as load_sam,
    make_regions as make_regions,
)
from .fusion import (
    Freeda as Freeda,
    FssDino as FssDino,
    KnnClip as KnnClip,
    Method as Method,
    ZeroShot as ZeroShot,
)
from .adapter import (
    OfflineLinear as OfflineLinear,
    RNS as RNS,
    methods as methods,
)
from .model import (
    ROSE as ROSE,
    RoseMethod as RoseMethod,
)
from .segmenter import (
    Segmenter as Segmenter,
)
from .evaluation import (
    compare as compare,
    evaluate as evaluate,
)
from .viz.export import (
    read_coco as read_coco,
    write_coco as write_coco,
    write_folder as write_folder,
)

__version__: str
