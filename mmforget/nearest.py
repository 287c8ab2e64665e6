"""Which known name somebody may have meant."""

from collections.abc import Sequence
from difflib import get_close_matches


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """`` Did you mean 'bag'?`` for ``Bags``, upper and lower case alike; or nothing.

    Args:
        name: What was given.
        known: What there is.
    """
    folded = {other.casefold(): other for other in known}
    close = get_close_matches(str(name).casefold(), folded, n=3)
    return f' Did you mean {" or ".join(repr(folded[key]) for key in close)}?' if close else ''
