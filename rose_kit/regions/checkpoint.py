"""SAM checkpoints: which there are, where they come from, and that they are what they claim to be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam as SamModel

from rose_kit.encoder.base import WeightsUnavailable
from rose_kit.regions.cache import cache_folder

SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/"
INSTEAD = "Regions 'slic' need no weights"


@dataclass(frozen=True)
class Checkpoint:
    """One published set of weights.

    Args:
        build: () -> the untrained model.
        file: name of the file; its address is `source` + `file`.
        sha256: of the file, 64 hexadecimal digits.
        source: where it is published.
    """

    build: Callable[[], SamModel]
    file: str
    sha256: str
    source: str = SOURCE


# The digits in the file names are of the MD5; these are the SHA-256 of the same files (0.4, 1.2, 2.6 GB).
CHECKPOINTS: dict[str, Checkpoint] = {
    "vit_b": Checkpoint(
        build_sam_vit_b,
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Checkpoint(
        build_sam_vit_l,
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": Checkpoint(
        build_sam_vit_h,
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def load_sam(checkpoint: str | Path = "vit_b", architecture: str = "", sha256: str = "") -> SamModel:
    """A SAM with checked weights; only tensors are read from the file, never other objects.

    Args:
        checkpoint: "vit_b", "vit_l" or "vit_h" (fetched once), or the path of a file.
        architecture: of the file; by default read off the published file names.
        sha256: what the file must hash to, for weights of your own; by default the published hash.

    Returns:
        The model on the CPU, ready to predict.

    Raises:
        ValueError: there is no such checkpoint or architecture, the file's SHA-256 is another than
            expected (says both), or it holds no weights of that architecture.
        WeightsUnavailable: (a ValueError) the weights could not be fetched.
    """
    name, path = architecture or _architecture_of(checkpoint), Path(checkpoint)
    if name not in CHECKPOINTS:
        raise ValueError(f"unknown SAM architecture {name!r}. Known: {', '.join(CHECKPOINTS)}")
    known = CHECKPOINTS[name]
    if str(checkpoint) in CHECKPOINTS:
        path = _fetch(str(checkpoint))
    found, expected = _sha256(path), sha256.lower() or known.sha256
    if found != expected:
        raise ValueError(
            f"{str(path)!r} has SHA-256 {found}, but {name} should have {expected}: it is damaged, or not "
            f"the published file; if it is your own, say so with sha256={found!r}"
        )
    model = known.build()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a file that is no checkpoint makes the reader raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{str(path)!r} is no checkpoint of SAM {name}: {reason}") from error
    return model.eval()


def _architecture_of(checkpoint: str | Path) -> str:
    for name, known in CHECKPOINTS.items():
        if str(checkpoint) == name or Path(checkpoint).name == known.file:
            return name
    files = ", ".join(known.file for known in CHECKPOINTS.values())
    if Path(checkpoint).is_file():
        raise ValueError(
            f"{str(checkpoint)!r} is none of the published files ({files}): name its architecture, "
            f"one of {', '.join(CHECKPOINTS)}, and its sha256"
        )
    raise ValueError(
        f"unknown SAM checkpoint {str(checkpoint)!r}. Known: {', '.join(CHECKPOINTS)}, or the path of a file"
    )


def _fetch(name: str) -> Path:
    known, folder = CHECKPOINTS[name], cache_folder("sam")
    url, path = known.source + known.file, folder / known.file
    if path.is_file():  # checked by the caller, like any other
        return path
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    bar = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        return Path(pooch.retrieve(url, f"sha256:{known.sha256}", known.file, folder, downloader=bar))
    except OSError as error:
        raise WeightsUnavailable(
            f"could not fetch the weights of SAM {name!r} from {url} ({type(error).__name__}): this needs "
            f"the network once, or the file at {str(path)!r}. {INSTEAD}"
        ) from error
    except ValueError as error:  # pooch: another hash
        raise WeightsUnavailable(f"{url} did not give the published file: {error}. {INSTEAD}") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read SAM checkpoint {str(path)!r}: {error.strerror or error}") from error
