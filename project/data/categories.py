"""The categories of a data set, and their two numberings."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Categories:
    """Categories ordered by id. The model's class k is the k-th of them.

    Attributes:
        ids: ids in the JSON, ascending; gaps are fine.
        names: their names, in the same order.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def from_mapping(cls, names_by_id: Mapping) -> "Categories":
        """From id -> name; ids may be strings, as JSON and YAML make them."""
        ordered = sorted((int(category_id), str(name)) for category_id, name in names_by_id.items())
        return cls(tuple(i for i, _ in ordered), tuple(name for _, name in ordered))

    def to_mapping(self) -> dict[int, str]:
        """id -> name, plain data for a checkpoint."""
        return dict(zip(self.ids, self.names, strict=True))

    @property
    def contiguous_ids(self) -> dict[int, int]:
        """id in the JSON -> the model's class, 0..K-1."""
        return {category_id: index for index, category_id in enumerate(self.ids)}

    @property
    def unique_names(self) -> dict[int, str]:
        """id -> name, with the id where another category has the same name."""
        number = Counter(self.names)
        return {
            category_id: name if number[name] == 1 else f"{name} (id {category_id})"
            for category_id, name in self.to_mapping().items()
        }

    def is_part_of(self, other: "Categories") -> bool:
        """Whether ``other`` has every one of these, under the same name."""
        return self.to_mapping().items() <= other.to_mapping().items()

    def difference(self, other: "Categories", shown: int = 3) -> str:
        """The first few that one has and the other has not, for a message."""
        mine, theirs = set(self.to_mapping().items()), set(other.to_mapping().items())
        only = sorted(mine ^ theirs)
        words = [f"{i} {name!r}" for i, name in only[:shown]]
        return (
            f"{len(self.ids)} and {len(other.ids)} categories; only in one: {', '.join(words)}"
            + ", ..." * (len(only) > shown)
        )


def read_categories(coco_json: Mapping, source: Path, *, skip_bad: bool = False) -> Categories:
    """The categories of a COCO JSON, repaired as when it is loaded; none where it has no list.

    Args:
        skip_bad: leave out those with errors, instead of refusing.

    Raises:
        UserError: a category has an error.
    """
    # Here, because whoever runs an exported model need not have what the checks do.
    from project.data.checking.inspection import inspect_content
    from project.data.checking.report import require_no_errors

    if not coco_json.get("categories"):
        return Categories((), ())
    content = {"categories": coco_json["categories"], "images": []}
    inspection = inspect_content(content, {})
    if not skip_bad:
        require_no_errors(inspection, source)
    return Categories.from_mapping({c["id"]: c["name"] for c in inspection.content["categories"]})
