"""The line that makes a notebook's numbers traceable: versions and the parameters in effect."""

import platform
from importlib.metadata import version


def print_versions(**parameters: object) -> None:
    """Print the versions that numbers depend on, then the parameters in effect, one line each.

    Args:
        parameters: the notebook's parameters as they are after papermill replaced some.
    """
    packages = ("rose_kit", "torch", "open_clip_torch", "faiss-cpu", "numpy")
    print(f"python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages))
    print("parameters: " + ", ".join(f"{name}={value!r}" for name, value in parameters.items()))
