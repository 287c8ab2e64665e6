"""Finds the list of categories in a COCO annotation file without parsing the file."""

import re
from collections.abc import Iterator
from mmap import mmap

_KEY = b'"categories"'
_LIST = re.compile(rb'\s*:\s*(?=\[\s*\{)')
_NEAR = 1 << 20


def category_lists(text: mmap) -> Iterator[int]:
    """Where a key ``"categories"`` is followed by a list of objects, the likeliest first.

    Files have their categories at the end, as COCO has them, or at the beginning; what lies
    between may be half a gigabyte and is searched last, backwards like all. The same word may
    stand elsewhere, as a value or inside the images, so there can be several places, and one can
    come twice.

    Args:
        text: The whole file.

    Yields:
        Offsets of the opening bracket.
    """
    tail = max(0, len(text) - _NEAR)
    yield from _backwards(text, tail, len(text))
    if tail:
        yield from _backwards(text, 0, _NEAR)
        yield from _backwards(text, 0, tail + len(_KEY) - 1)


def _backwards(text: mmap, start: int, end: int) -> Iterator[int]:
    at = text.rfind(_KEY, start, end)
    while at >= 0:
        after = at + len(_KEY)
        found = _LIST.match(text[after : after + 64])
        if found:
            yield after + found.end()
        at = text.rfind(_KEY, start, at)
