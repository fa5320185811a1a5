"""The exercise of 11_scaling."""

from course import checks, exercise, expect


@exercise(
    level=1,
    minutes=10,
    hints=(
        "raise nprobe from 1 on until the recall is high enough",
        "in a loop over `range(1, most + 1)`, return the first nprobe whose "
        "`recall_of(nprobe)` is `wanted` or more; after the loop, return None",
    ),
    right="The next figure asks it with the recall of this notebook.",
)
def effort_for(wanted, recall_of, most):
    """The fewest lists to visit, from 1 to `most`, for a recall of at least `wanted`; None if none will do.

    Args: recall_of(nprobe) -> the recall of a search that visits so many lists.
    """
    for nprobe in range(1, most + 1):
        if recall_of(nprobe) >= wanted:
            return nprobe
    return None


@checks(effort_for)
def _(answer):
    table = {1: 0.5, 2: 0.7, 3: 0.69, 4: 0.9, 5: 0.95, 6: 0.99}
    asked = []

    def recall_of(nprobe):
        expect(nprobe in table, f"asks for a search of {nprobe!r} lists, where 1 to 6 are possible")
        asked.append(nprobe)
        return table[nprobe]

    found = answer(0.9, recall_of, 6)
    expect(asked != [], "never calls recall_of: measure before you answer")
    expect(found is not None, "returns None, although 4 lists are enough for 0.9")
    expect(found != 0.9, "returns the recall: the number of lists is asked for")
    expect(found != 5, "asks for more than `wanted`: a recall of exactly that is enough")
    expect(found == 4, f"returns {found} where 4 is the fewest for a recall of 0.9")
    expect(answer(0.5, recall_of, 6) == 1, "does not return 1 where one list is enough")
    expect(answer(0.7, lambda n: n / 10, 8) == 7, "leaves out numbers between: 7 lists are enough for 0.7")
    expect(answer(0.99, recall_of, 6) == 6, "never tries `most` itself: 6 lists bring 0.99")
    says = "does not return 2 for a recall of 0.7: recall may fall as lists are added, so try them in turn"
    dips = {1: 0.5, 2: 0.7, 3: 0.69, 4: 0.68, 5: 0.95, 6: 0.99}
    expect(answer(0.7, dips.__getitem__, 6) == 2, says)
    nearly = {1: 0.946, 2: 0.951}.__getitem__
    expect(answer(0.95, nearly, 2) == 2, "takes nearly for enough: 0.946 is not 0.95")
    expect(answer(0.999, recall_of, 6) is None, "does not return None where no number of lists is enough")
