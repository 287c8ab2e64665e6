"""Which validation images a task's panel shows."""

from collections.abc import Sequence, Set


def choose_images(held: Sequence[Set[str]], classes: Sequence[str], number: int) -> list[int]:
    """Images with a class of the task first, the classes taking turns; the rest fills up.

    In its turn a class takes the first image that holds it and something else besides, so that
    forgetting and keeping are seen side by side, or else the first that holds it at all. The
    result depends on the arguments alone.

    Args:
        held: For each image of the data set the names of the classes it holds.
        classes: The task's classes.
        number: How many images; fewer where the data set has fewer.

    Returns:
        Indices of images, those with a class of the task first.
    """
    forgotten = set(classes)
    waiting = {
        name: sorted(
            (image for image, names in enumerate(held) if name in names),
            key=lambda image: (held[image] <= forgotten, image),
        )
        for name in classes
    }
    chosen: dict[int, None] = {}
    while len(chosen) < number and any(waiting.values()):
        for name in classes:
            while waiting[name] and len(chosen) < number:
                image = waiting[name].pop(0)
                if image not in chosen:
                    chosen[image] = None
                    break
    for image in range(len(held)):
        if len(chosen) >= number:
            break
        chosen.setdefault(image)
    return list(chosen)
