"""Class names -> text features through prompt templates (CLIP, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Template = str | Callable[[str], str]  # "a photo of a {}." or a function of the name


@torch.inference_mode()
def encode_names(
    names: Sequence[str],
    templates: Sequence[Template],
    embed: Callable[[list[str]], Tensor],
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """One feature per name: each prompt's embedding normalised, averaged, normalised.

    Args:
        names: (C,) at least one.
        templates: the prompts each name is put into.
        embed: (B,) prompts -> (B, D).
        batch_size: prompts embedded at once.

    Returns:
        (C, D) float32, unit norm.

    Raises:
        ValueError: no name or no template, or `names` is one bare string.
    """
    if isinstance(names, str) or not len(names) or not len(templates):
        raise ValueError(f"need a list of names and templates, got {names!r} and {len(templates)} templates")
    prompts = [t.format(name) if isinstance(t, str) else t(name) for name in names for t in templates]
    batches = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    each = F.normalize(torch.cat([embed(batch).float() for batch in batches]), dim=-1)  # (C * templates, D)
    mean = each.reshape(len(names), len(templates), -1).mean(1)  # (C, D)
    return F.normalize(mean, dim=-1).cpu().numpy()
