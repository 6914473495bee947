"""What a naming of tensors is; each format of weights is a module with one such."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

BODY_PREFIX = "backbone.bottom_up.body."

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightFormat:
    """How the tensors of one kind of file are named.

    Attributes:
        name: as it is printed.
        recognises: whether a state dict is of this format, from its content.
        rename: (state dict, names of the model's tensors) -> the same tensors under the model's
            names; what the model lacks keeps a name that the model lacks.
        scope: prefix of the model's tensors that such a file fills, every one of them.
        may_be_left: prefixes of tensors that a detector has no use for -> the reason.
    """

    name: str
    recognises: Callable[[StateDict], bool]
    rename: Callable[[StateDict, set[str]], dict[str, Tensor]]
    scope: str = ""
    may_be_left: Mapping[str, str] = field(default_factory=dict)

    def reason_to_leave(self, name: str) -> str | None:
        """Why a detector has no use for the tensor ``name``; None where it should have."""
        reasons = (reason for prefix, reason in self.may_be_left.items() if name.startswith(prefix))
        return next(reasons, None)
