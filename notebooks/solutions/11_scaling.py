"""Solutions of 11_scaling, written by course/build.py from course/n11.py."""


def effort_for(wanted, recall_of, most):
    """The fewest lists to visit, from 1 to `most`, for a recall of at least `wanted`; None if none will do.

    Args: recall_of(nprobe) -> the recall of a search that visits so many lists.
    """
    for nprobe in range(1, most + 1):
        if recall_of(nprobe) >= wanted:
            return nprobe
    return None
