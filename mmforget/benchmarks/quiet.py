"""Libraries that print what nobody measures."""

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed inside."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
