"""Solutions of 10_trainable_rose, written by course/build.py from course/n10.py."""


def forget(memory, name):
    """The memory without a class; the one it is given stays as it is."""
    part = memory.copy()
    part.remove(class_name=name)
    return part
