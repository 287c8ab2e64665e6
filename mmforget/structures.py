"""The vocabulary of every room above: plain dataclasses without behaviour of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from mmforget.class_order import class_order, missing_classes, numbered_requests
from mmforget.nearest import did_you_mean


@dataclass(frozen=True)
class ForgettingTask:
    """One request: forget ``classes`` now.

    Attributes:
        index: Position in the scenario, from 0.
        classes: The forget set F_t.
        retained: R_t, the classes never requested up to and including this task.
        forgotten: O_t, the classes of all earlier tasks.
        missing: Those of R_t that have no training data (spec F, missing-class).
    """

    index: int
    classes: tuple[str, ...]
    retained: tuple[str, ...]
    forgotten: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for logs and files, counted from 1 as people count."""
        return f'task_{self.index + 1}'

    @property
    def replayed(self) -> tuple[str, ...]:
        """The retained classes whose data the retain stream may show."""
        return tuple(name for name in self.retained if name not in self.missing)


@dataclass(frozen=True)
class ForgettingScenario:
    """The order in which classes are forgotten (spec A.1).

    Attributes:
        classes: The detector's full label map, in label order.
        tasks: The tasks in their order.
    """

    classes: tuple[str, ...]
    tasks: tuple[ForgettingTask, ...]

    @classmethod
    def from_config(
        cls, scenario: Mapping[str, Any], classes: Sequence[str]
    ) -> 'ForgettingScenario':
        """Builds the tasks that a config's ``scenario`` describes.

        Args:
            scenario: ``tasks`` (class names, or numbers of classes counted from the end of
                ``class_order``), and optionally ``class_order`` and ``missing``, see
                ``mmforget.class_order``; other keys are not looked at.
            classes: The detector's full label map.

        Raises:
            ValueError: What it says does not fit the label map.
        """
        order = class_order(scenario.get('class_order'), classes)
        requests = numbered_requests(scenario['tasks'], order)
        built = cls.from_requests(requests, classes)
        requested = [name for task in built.tasks for name in task.classes]
        missing = missing_classes(scenario.get('missing', ()), order, requested)
        return cls.from_requests(requests, classes, missing)

    @classmethod
    def from_requests(
        cls,
        requests: Sequence[Sequence[str]],
        classes: Sequence[str],
        missing: Sequence[str] = (),
    ) -> 'ForgettingScenario':
        """Checks the requests against the label map and builds the tasks.

        Args:
            requests: Class names to forget, one sequence per task.
            classes: The detector's full label map.
            missing: Retained classes without training data.

        Raises:
            ValueError: A name is unknown, stands in two tasks or twice in one, a task is empty,
                or no class would be retained.
        """
        classes = tuple(classes)
        if isinstance(requests, str) or not isinstance(requests, Sequence) or not requests:
            raise ValueError(
                f'scenario.tasks is {requests!r}; expected a list of lists of class names, '
                "for example [['dog'], ['cat', 'cow']]."
            )
        first_task: dict[str, int] = {}
        tasks = []
        for index, request in enumerate(requests):
            if isinstance(request, str) or not isinstance(request, Sequence) or not request:
                raise ValueError(
                    f'scenario.tasks[{index}] is {request!r}; expected a list of at least one '
                    "class name, for example ['dog']."
                )
            for name in request:
                if name not in classes:
                    raise ValueError(
                        f'scenario.tasks[{index}] names the class {name!r}, which the detector '
                        f'does not know.{_nearest(name, classes)}'
                    )
                if name in first_task:
                    raise ValueError(
                        f'scenario.tasks[{index}] names the class {name!r}, which '
                        f'scenario.tasks[{first_task[name]}] forgets already. '
                        'Name each class once.'
                    )
                first_task[name] = index
            forgotten = tuple(name for name in classes if first_task.get(name, index) < index)
            retained = tuple(name for name in classes if name not in first_task)
            if not retained:
                raise ValueError(
                    f'After scenario.tasks[{index}] nothing is left to retain: all '
                    f'{len(classes)} classes would be forgotten. Leave at least one class out.'
                )
            absent = tuple(name for name in retained if name in missing)
            tasks.append(ForgettingTask(index, tuple(request), retained, forgotten, absent))
        return cls(classes, tuple(tasks))


def _nearest(name: object, classes: Sequence[str], listed: int = 100) -> str:
    """Which of the classes may have been meant, and which there are."""
    more = f', ... and {len(classes) - listed} more' if len(classes) > listed else ''
    return f'{did_you_mean(name, classes)} Its classes are: {", ".join(classes[:listed])}{more}.'


@dataclass
class StreamOutput:
    """What one stream (forget or retain) yields from the single forward.

    B images, Q queries (or places of a dense head), C classes, D embedding channels. What a
    detector family cannot give is ``None``; its tap says so in ``fields``.

    Attributes:
        losses: Weighted scalars of the detector's own criterion, by MMDetection's names
            (``loss_cls``, ``loss_bbox``, ``loss_iou``, ``d0.loss_cls``, ...).
        targets: For each image its ground truth ``InstanceData`` (``bboxes``, ``labels``).
        logits: Class logits of the last decoder layer or of the dense head, (B, Q, C).
        boxes: Boxes of the last decoder layer, (B, Q, 4), normalised cx, cy, w, h.
        embeddings: Query embeddings before the heads, (B, Q, D).
        halfway: Tokens after half of a transformer's blocks, (B, N, D), where they were asked for.
        matches: For each image the matched (query, object) index pairs, each (M_b, 2).
        sigmoid: Whether each class's logit is a sigmoid's of its own, or all are one softmax's.
        teacher: What the teacher gives for the same images, without gradient and losses; ``None``
            where the method asked for none.
    """

    losses: dict[str, Tensor]
    targets: list[Any]
    logits: Tensor | None = None
    boxes: Tensor | None = None
    embeddings: Tensor | None = None
    halfway: Tensor | None = None
    matches: list[Tensor] | None = None
    sigmoid: bool | None = None
    teacher: 'StreamOutput | None' = None


@dataclass
class StreamSampling:
    """How many images a stream draws, and how (spec A.4). Give exactly one of the three sizes.

    Attributes:
        images: A number of images.
        ratio: A share of the candidate images, in (0, 1].
        shots: k; k times the number of classes images are drawn.
        balanced: Draw class by class, so that each class has its k (or its equal share of
            ``images``), instead of jointly.
        unlabelled: What objects outside the stream's classes are: ``'background'`` (as the
            paper) or ``'ignore'``.
        batch_size: Images of this stream per step; ``None`` takes the dataloader's.
        augmentations: How many variants of an image the random transforms make, fixed in advance;
            ``None`` draws anew each time an image is seen.
        recurring: The images come in one random order for all tasks, of which each task takes the
            first that are candidates, so that most of one task's images come again in the next:
            a replay buffer. Otherwise each task draws on its own (the paper's way).
        authors_seed: Draws the very images of the authors' detection code, whose generator begins
            with this number (123) for every task; jointly, from one COCO file.
    """

    images: int | None = None
    ratio: float | None = None
    shots: int | None = None
    balanced: bool = False
    unlabelled: str = 'background'
    batch_size: int | None = None
    augmentations: int | None = None
    recurring: bool = False
    authors_seed: int | None = None

    def __post_init__(self) -> None:
        sizes = {k: getattr(self, k) for k in ('images', 'ratio', 'shots')}
        given = {k: v for k, v in sizes.items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                f'A stream got the sizes {given}; give exactly one of images, ratio or shots.'
            )
        ((key, value),) = given.items()
        if value <= 0 or (key == 'ratio' and value > 1):
            expected = 'a share in (0, 1]' if key == 'ratio' else 'a positive whole number'
            raise ValueError(f'A stream got {key}={value!r}; expected {expected}.')
        if self.unlabelled not in ('background', 'ignore'):
            raise ValueError(
                f"A stream got unlabelled={self.unlabelled!r}; expected 'background' or 'ignore'."
            )
        if self.augmentations is not None and (
            not isinstance(self.augmentations, int) or self.augmentations < 1
        ):
            raise ValueError(
                f'A stream got augmentations={self.augmentations!r}; expected a positive whole '
                'number of variants of each image, or None to draw anew each time.'
            )
        if self.authors_seed is not None and (self.balanced or self.recurring):
            raise ValueError(
                f'A stream got authors_seed={self.authors_seed!r} together with balanced or '
                'recurring; the authors draw jointly, and anew for each task. Leave one out.'
            )


@dataclass
class ProtocolResult:
    """The metrics of one task under one protocol; AP in 0..1, ``None`` where undefined.

    ``H`` is the harmonic mean of AP_r and Drop, Drop is measured against the loaded detector
    (spec A.2). ``H_ceiling`` is H for AP_f = 0 and AP_r unchanged. ``AP_m`` is that of the retained
    classes without training data, which count for AP_r as well.
    """

    AP_f: float | None
    AP_r: float | None
    AP_o: float | None
    drop: float | None
    H: float | None
    H_ceiling: float | None
    AP_r_relative: float | None
    AP50_f: float | None
    AP50_r: float | None
    AP50_o: float | None
    AP50_drop: float | None
    AP50_H: float | None
    AP50_H_ceiling: float | None
    AP50_r_relative: float | None
    AP_m: float | None = None
    AP_m_relative: float | None = None
    AP50_m: float | None = None
    AP50_m_relative: float | None = None


@dataclass
class ResultsRow:
    """One row of ``forgetting.json``: what one task did (design, section 3).

    ``images`` are those that each stream draws from, ``batches_before`` what went through the
    network before the first step (``ranking``, ``trials``, ``measurement``), ``segm`` holds
    ``full``, ``restricted`` and ``per_class`` of masks, where they are scored.
    """

    task: int
    classes: list[str]
    steps: int
    images: dict[str, int]
    seconds: float
    peak_memory_mb: float
    trainable: int
    trainable_share: float
    groups: dict[str, float]
    full: dict[str, float | None] = field(default_factory=dict)
    restricted: dict[str, float | None] = field(default_factory=dict)
    per_class: dict[str, list[float | None]] = field(default_factory=dict)
    segm: dict[str, Any] = field(default_factory=dict)
    batches_before: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON types; without ``segm`` where no mask was scored."""
        row = asdict(self)
        if not self.segm:
            del row['segm']
        return row
