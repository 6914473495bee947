"""Equal numbers stay in order when they are sorted."""

import torch
from torch.overrides import TorchFunctionMode


class StableSort(TorchFunctionMode):
    """A context in which ``Tensor.sort`` is stable.

    torch leaves open which of equal numbers comes first, and so which of equally certain proposals
    Detectron2 keeps. There are some in most pictures: where every feature is zero, the RPN's logit
    is its bias. ONNX takes the one with the lower index.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.sort:
            kwargs["stable"] = True
        return func(*args, **kwargs)
