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
    pages = [("2031-04-02", "b"), ("2031-03-30", "d"), ("2031-04-09", "a"), ("2031-04-05", "c")]
    pages += [("2031-04-02", "e"), ("2031-04-02", "b")]  # of one day, and one of them twice
    pages += [("2030-12-30", "f")]
    found = answer(pages, "2031-04-05")
    expect(found is not None, "returns None: `list.sort` sorts in place; is the `return` missing?")
    expect(isinstance(found, list), f"returns a {type(found).__name__}, where a list is asked for")
    says = f"returns {found}, without the pairs (date, text) that it was given"
    expect(all(page in pages for page in found), says)
    dates = [date for date, _ in found]
    expect(
        "2031-04-09" not in dates, "lets in a page that appeared later: an answer would know its own future"
    )
    expect("2031-04-05" in dates, "leaves out the page of the day itself")
    says = "loses pages: several are of one day, some say the same again, one is of another year"
    expect(sorted(found) == sorted(page for page in pages if page[0] <= "2031-04-05"), says)
    expect(dates != sorted(dates), "begins with the oldest: the newest comes first")
    expect(dates == sorted(dates, reverse=True), "sorts by something else than the dates")
    expect(not list(answer(pages, "2030-01-01")), "does not return an empty list where nothing had appeared")
