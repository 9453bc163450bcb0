"""Numbers in messages: with as many digits as it takes to be the number."""

from collections.abc import Sequence
from typing import Any


def shown(value: Any) -> str:
    """The shortest text that reads back as the number in its own precision.

    `value` is a number of Python or a scalar of numpy; whole ones come without a point.
    """
    return str(value).removesuffix(".0")


def told_apart(first: Sequence[float], second: Sequence[float]) -> tuple[str, str]:
    """Two lists of numbers as text, with the fewest digits that show each difference.

    At least six digits; numbers that differ beyond the 17th are shown alike.
    """
    for digits in range(6, 18):
        texts = [[f"{v:.{digits}g}" for v in values] for values in (first, second)]
        pairs = zip(first, second, *texts, strict=False)
        if all(a == b or x != y for a, b, x, y in pairs):
            break
    return " ".join(texts[0]), " ".join(texts[1])
