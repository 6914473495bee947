"""What a checkpoint may hold beside tensors and plain data, and what it is read as.

Training checkpoints of mmdetection hold numpy scalars (a best score), those of version 3 also
mmengine's histories of losses. Nothing here can do more than make a number or an array: a history
is read as an empty object, and its methods, which it stores by name, as nothing.
"""

import codecs
from collections.abc import Callable

import numpy as np

_NUMPY_KINDS = "?bBhHiIlLqQefdSU"


def _named(target: Callable, module: str, name: str) -> Callable:
    """``target`` under the name that files know it by; torch's unpickler looks at that."""

    def read(*args):
        return target(*args)

    read.__module__, read.__name__, read.__qualname__ = module, name, name
    return read


def _nothing(*args) -> None:
    """Stands for what is of no use here."""


class _History:
    """Stands for mmengine's ``HistoryBuffer``."""

    def __setstate__(self, state: object) -> None:
        """Drop what it held."""


_History.__module__ = "mmengine.logging.history_buffer"
_History.__name__ = _History.__qualname__ = "HistoryBuffer"

SAFE_GLOBALS = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in _NUMPY_KINDS},
    # numpy 2 renamed the module.
    *(
        _named(getattr(np._core.multiarray, name), f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    _named(codecs.encode, "_codecs", "encode"),
    _History,
    _named(_nothing, "builtins", "getattr"),
    _named(_nothing, "__builtin__", "getattr"),
]
