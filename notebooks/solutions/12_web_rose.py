"""Solutions of 12_web_rose, written by course/build.py from course/n12.py."""


def known_by(pages, day):
    """The pages that had appeared by a day, that day included, newest first.

    Args: pages, a list of (date, text) with dates such as "2031-04-09"; day, a date of the same form.
    """
    return sorted((page for page in pages if page[0] <= day), key=lambda page: page[0], reverse=True)
