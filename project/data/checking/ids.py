"""Ids of a COCO JSON: what they may mean, and which cannot be used."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping


class FreshIds:
    """Gives annotations ids of their own, keeping those that are good."""

    def __init__(self, annotations: list):
        given = (a.get("id") for a in annotations if isinstance(a, Mapping))
        self.next = max((i for i in given if is_integer(i) and i > 0), default=0) + 1
        self.taken: set[int] = set()

    def take(self, annotation_id: object) -> tuple[str | None, int]:
        """What is wrong with the id, if anything, and the id to use."""
        if annotation_id is None:
            problem = "annotation-id-missing"
        elif not is_integer(annotation_id):
            problem = "annotation-id-type"
        elif annotation_id == 0:
            problem = "annotation-id-zero"
        elif annotation_id in self.taken:
            problem = "annotation-id-twice"
        else:
            self.taken.add(annotation_id)
            return None, annotation_id
        self.next += 1
        return problem, self.next - 1


def as_number(value: object) -> object:
    """A whole number that is written as text becomes one, and one with a decimal point."""
    is_number = isinstance(value, str) and value.removeprefix("-").isdecimal()
    return int(value) if is_number else without_point(value)


def without_point(value: object) -> object:
    """1.0, as pandas writes it, becomes 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def ambiguous_ids(pairs: Iterable[tuple]) -> set:
    """The ids that stand for two things: whose objects they are, nobody can say.

    Args:
        pairs: ids, and names of what they stand for.
    """
    meanings: dict[object, set] = defaultdict(set)
    for identifier, name in pairs:
        identifier = without_point(identifier)
        if isinstance(identifier, (int, str)):
            meanings[identifier].add(repr(name))
    return {identifier for identifier, names in meanings.items() if len(names) > 1}


def readings(value: object) -> Iterator[object]:
    """What an id may mean: itself, or a number for a text, and the other way round."""
    if is_integer(value):
        yield value
        yield str(value)
    elif isinstance(value, str):
        yield value
        if as_number(value) != value:
            yield as_number(value)
    elif without_point(value) is not value:
        yield without_point(value)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
