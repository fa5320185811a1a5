"""The line that makes a notebook's numbers traceable: versions and the parameters in effect."""

from rose_kit.registry import versions


def print_versions(**parameters: object) -> None:
    """Print the versions that numbers depend on, then the parameters in effect, one line each.

    Args:
        parameters: the notebook's parameters as they are after papermill replaced some.
    """
    print(", ".join(f"{package} {number}" for package, number in versions().items()))
    print("parameters: " + ", ".join(f"{name}={value!r}" for name, value in parameters.items()))
