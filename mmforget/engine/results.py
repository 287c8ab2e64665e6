"""``forgetting.json``: every table and plot is drawn from it (design, section 3)."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA = 1
FILE_NAME = 'forgetting.json'


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Writes, syncs, renames: an interrupted write leaves the old file as it was."""
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_results(
    folder: str | os.PathLike,
    base: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the results of all tasks so far.

    Args:
        folder: The work dir.
        base: The loaded detector's metrics.
        rows: One per task, in order.
        run: What was run: method, trainable part, seed, steps, images of a step.
    """
    path = Path(folder) / FILE_NAME
    document = {'schema': SCHEMA, 'run': dict(run or {}), 'base': base or {}, 'tasks': list(rows)}
    write_atomically(path, json.dumps(document, indent=2) + '\n')
    return path


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a results file.

    Raises:
        ValueError: The file has another schema.
    """
    document = json.loads(Path(path).read_text())
    if document.get('schema') != SCHEMA:
        raise ValueError(
            f'{path} has schema {document.get("schema")!r}, expected {SCHEMA}. '
            'It was written by another version of mmforget.'
        )
    return document
