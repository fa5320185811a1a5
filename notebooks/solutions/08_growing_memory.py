"""Solutions of 08_growing_memory, written by course/build.py from course/n08.py."""


def vetted(memory, rows, k=4):
    """(R,) bool: which new rows a memory should let in: at least half of their k nearest bear their name."""
    hits = memory.search(rows.vectors, k)
    names = memory.lookup(hits.ids).class_names.reshape(hits.ids.shape)  # (R, k)
    return (names == rows.class_names[:, None]).mean(1) >= 0.5
