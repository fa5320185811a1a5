"""The ROSE pipeline of the article as one trainable module: perception, retrieval, fusion, prediction.

Read `rose.py` first, then the stages: perception (`pyramid` in `decoder.py`), retrieval and fusion
(`fusion.py`), prediction (`decoder.py`); `training.py`
trains them all.
"""

from rose_kit.adapter import methods
from rose_kit.model.rose import ROSE, RoseMethod

__all__ = ["ROSE", "RoseMethod", "methods"]
