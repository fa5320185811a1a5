"""The exercise of 12_web_rose."""

from course import checks, exercise, expect


@exercise(
    level=1,
    minutes=10,
    hints=(
        "keep the pages whose date is not later, then sort them",
        "dates of this form compare as strings do: `page[0] <= day`; `sorted(..., key=lambda "
        "page: page[0], reverse=True)` puts the newest first",
    ),
    right="The filled circles of the next figure are yours.",
)
def known_by(pages, day):
    """The pages that had appeared by a day, that day included, newest first.

    Args: pages, a list of (date, text) with dates such as "2031-04-09"; day, a date of the same form.
    """
    return sorted((page for page in pages if page[0] <= day), key=lambda page: page[0], reverse=True)


@checks(known_by)
def _(answer):
    pages = [("2031-04-02", "b"), ("2031-03-30", "a"), ("2031-04-09", "d"), ("2031-04-05", "c")]
    given = list(pages)
    found = answer(pages, "2031-04-05")
    expect(pages == given, "changes the list it is given: make a new one")
    expect(found is not None, "returns None: `list.sort` sorts in place; is the `return` missing?")
    told = [page[1] if isinstance(page, tuple) else page for page in found]
    expect("d" not in told, "lets in a page that appeared later: an answer would know its own future")
    expect("c" in told, "leaves out the page of the day itself")
    expect(told != ["a", "b", "c"], "begins with the oldest: the newest comes first")
    says = f"returns {list(found)}, without the pairs (date, text) that it was given"
    expect(all(page in pages for page in found), says)
    expect(list(found) == [pages[3], pages[0], pages[1]], f"returns {list(found)}: newest first is c, b, a")
    expect(
        list(answer(pages, "2030-01-01")) == [], "does not return an empty list where nothing had appeared"
    )
