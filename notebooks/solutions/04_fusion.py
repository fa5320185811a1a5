"""Solutions of 04_fusion, written by course/build.py from course/n04.py."""

from rose_kit.fusion.zero_shot import softmax


def late_fusion(cosine, vote, scale, weight):
    """(N, C) cosines of patches and names, (N, C) vote -> (N, C) probabilities of both.

    The names say softmax(scale * cosine), at any scale; `weight` is the share of the vote.
    """
    return weight * vote + (1 - weight) * softmax(scale * cosine)
