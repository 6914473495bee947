"""Names of another project's tensors and ours, as a table that is read both ways."""

import re
from collections.abc import Iterable, Mapping


class NameTable:
    """Rows of (their prefix, our prefix), of whole components of dotted names.

    A ``*`` stands for one run of letters and digits, the same on both sides. The most specific row
    that fits a name renames it.

    Example:
        >>> table = NameTable({"neck.*.conv": "fpn.*", "neck.*.conv.bn": "fpn.*.norm"})
        >>> table.to_ours("neck.3.conv.bn.weight"), table.to_theirs("fpn.3.bias")
        ('fpn.3.norm.weight', 'neck.3.conv.bias')
    """

    def __init__(self, rows: Mapping[str, str]):
        self._forward = _compiled(rows.items())
        self._backward = _compiled((ours, theirs) for theirs, ours in rows.items())

    def to_ours(self, name: str) -> str | None:
        """Our name of their tensor; None where no row fits."""
        return _renamed(name, self._forward)

    def to_theirs(self, name: str) -> str | None:
        """Their name of our tensor; None where no row fits."""
        return _renamed(name, self._backward)


def _compiled(rows: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
    most_specific_first = sorted(
        rows, key=lambda row: (row[0].count("."), -row[0].count("*")), reverse=True
    )
    return [
        (re.compile(re.escape(source).replace(r"\*", "([A-Za-z0-9]+)") + r"(?=\.)"), target)
        for source, target in most_specific_first
    ]


def _renamed(name: str, rows: list[tuple[re.Pattern, str]]) -> str | None:
    for pattern, target in rows:
        match = pattern.match(name)
        if match:
            for text in match.groups():
                target = target.replace("*", text, 1)
            return target + name[match.end() :]
    return None
