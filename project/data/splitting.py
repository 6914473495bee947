"""Which images go into a part of a data set, so that each class has its share there."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from project.errors import UserError


def stratified_split(
    classes: Mapping[Hashable, Iterable[Hashable]],
    share: float,
    seed: int,
    together: Sequence[tuple[Hashable, Hashable]] = (),
) -> set[Hashable]:
    """Choose images for validation such that each class has its share of images there.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label
    Data, 2011, algorithm 1): images of the rarest class are given away first, each to the side that
    lacks most images of that class.

    Args:
        classes: image -> the classes that it shows; none for an image without objects.
        share: of the images to choose, above 0 and below 1.
        seed: of the order in which images are looked at.
        together: pairs of images that must be on one side, near-duplicates say.

    Returns:
        The chosen images.

    Raises:
        UserError: the seed is negative.
    """
    groups = _groups(list(classes), together)
    groups = [groups[i] for i in _permutation(len(groups), seed)]
    # None is a class that every image has, so that those without objects are shared out too.
    labels = [
        Counter(label for image in group for label in {*classes[image], None}) for group in groups
    ]
    total: Counter = sum(labels, Counter())
    lacks: dict[bool, dict] = {True: {}, False: {}}
    for label, number in total.items():
        wanted = share * number
        if label is not None and number > 1:
            wanted = min(max(wanted, 1), number - 1)  # a rare class is in both parts
        lacks[True][label], lacks[False][label] = wanted, number - wanted
    chosen: set[Hashable] = set()
    left = dict(enumerate(labels))
    while left:
        remaining: Counter = sum(left.values(), Counter())
        rarest = min(remaining, key=lambda label: (label is None, remaining[label], str(label)))
        for number in [number for number, counts in left.items() if counts[rarest]]:
            side = max(True, False, key=lambda side: (lacks[side][rarest], lacks[side][None]))
            if side:
                chosen.update(groups[number])
            for label, count in left.pop(number).items():
                lacks[side][label] -= count
    return chosen


def stratified_order(
    classes: Mapping[Hashable, Iterable[Hashable]], seed: int, length: int
) -> list[Hashable]:
    """Images in an order of which every beginning has each class in its share, nearly.

    Next is always the image whose classes the images before it lack most, in all.

    Args:
        classes: image -> the classes that it shows.
        seed: decides between images of equal classes.
        length: how many are wanted.

    Raises:
        UserError: the seed is negative.
    """
    images = list(classes)
    labels = sorted({label for image in images for label in classes[image]}, key=str)
    shows = np.array([[label in set(classes[image]) for label in labels] for image in images])
    shows = shows.reshape(len(images), len(labels)).astype(float)
    shares = shows.mean(axis=0)
    left = _permutation(len(images), seed)
    order: list[int] = []
    counts = np.zeros(len(labels))
    while len(left) and len(order) < length:
        lacks = (len(order) + 1) * shares - counts
        best = int(np.argmax(shows[left] @ lacks))
        order.append(left[best])
        counts += shows[left[best]]
        left = np.delete(left, best)
    return [images[index] for index in order]


def _permutation(number: int, seed: int) -> np.ndarray:
    if seed < 0:
        raise UserError(f"--seed {seed}: choose 0 or more")
    return np.random.default_rng(seed).permutation(number)


def _groups(images: list, together: Sequence[tuple]) -> list[list]:
    """Images that must stay together, transitively."""
    parent = {image: image for image in images}

    def root(image: Hashable) -> Hashable:
        while parent[image] != image:
            image = parent[image]
        return image

    for first, second in together:
        parent[root(second)] = root(first)
    groups = defaultdict(list)
    for image in images:
        groups[root(image)].append(image)
    return list(groups.values())
