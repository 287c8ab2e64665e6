"""The vocabulary of the benchmarks: what is timed, beside what, and what came out."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Detail = float | int | str


@dataclass(frozen=True)
class Settings:
    """What a whole benchmark shares; plain types, so that a fresh process can be told.

    Attributes:
        configs: Folder of mmforget's configs.
        scratch: Folder for files that are made on the way.
        device: ``'cpu'`` or ``'cuda'``.
        quick: Small sizes, for tests of the benchmark itself.
        repetitions: How often each variant is timed.
        memory: Whether peak memory is measured, in a fresh process per variant.
        seed: Of weights, images and samples.
    """

    configs: str
    scratch: str
    device: str = 'cpu'
    quick: bool = False
    repetitions: int = 5
    memory: bool = True
    seed: int = 0


class Action:
    """One unit of work that is timed again and again.

    Attributes:
        trainable: Parameters that are trained.
        calls: Calls that are timed together, where one is too short to be timed.
    """

    trainable: int = 0
    calls: int = 1

    @property
    def cache_bytes(self) -> int:
        """What is kept from one call to the next, beside the model."""
        return 0

    def warm(self) -> None:
        """Whatever is done once before timing; by default one call."""
        self()

    def __call__(self) -> None:
        """The work."""
        raise NotImplementedError

    def details(self) -> dict[str, Detail]:
        """Further columns of the table, known after the last call."""
        return {}


@dataclass(frozen=True)
class Case:
    """Variants of the same work, measured side by side.

    Attributes:
        level: Name of the level.
        title: What is done, with its size; unique within the level.
        reference: The variant that ratios are taken to.
        variants: Name -> how to build it. Nothing is built before it is needed.
        counted: Whether operations are counted for the floor.
        dtype: Name of the compute dtype.
        note: What a reader must know.
    """

    level: str
    title: str
    reference: str
    variants: Mapping[str, Callable[[], Action]]
    counted: bool = False
    dtype: str = 'float32'
    note: str = ''


@dataclass
class Measurement:
    """One variant of a case.

    Attributes:
        variant: Its name.
        seconds: Median over the repetitions.
        fastest: The shortest repetition, in seconds.
        slowest: The longest one.
        ratio: Median by the reference's.
        trainable: Parameters that are trained.
        cache_bytes: What is kept between calls.
        peak_memory: Bytes at the peak of one call, the built model not counted, the cache counted;
            ``None`` when not measured.
        details: Further columns.
        error: Why the variant, or its memory, could not be measured.
    """

    variant: str
    seconds: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    ratio: float | None = None
    trainable: int | None = None
    cache_bytes: int | None = None
    peak_memory: int | None = None
    details: dict[str, Detail] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Table:
    """A measured case."""

    level: str
    title: str
    reference: str
    repetitions: int
    note: str
    rows: list[Measurement]

    def row(self, variant: str) -> Measurement | None:
        """The row of a variant, if there is one."""
        return next((row for row in self.rows if row.variant == variant), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> 'Table':
        """The inverse of ``to_dict``."""
        rows = [Measurement(**row) for row in content['rows']]
        return cls(**{**content, 'rows': rows})
