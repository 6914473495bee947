"""A module's kernels, launched at once (CUDA graphs)."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from project.errors import UserError, reason_of

MAX_GRAPHS = 16  # a detector has four for each size of a batch, and each keeps the features
_capturing = threading.Lock()


class GraphedCalls:
    """Calls modules at inference; what is called again with inputs of the same size is replayed.

    A body of a hundred layers has several hundred kernels, which take a fast GPU less time than
    Python takes to launch them. A graph reads weights where they lie, so that it computes with
    those of the moment; where they lie elsewhere, there is another graph. On a CPU, with gradients
    and in tracing it is the plain call.
    """

    def __init__(self):
        self._graphs: OrderedDict[tuple, tuple] = OrderedDict()
        self._last: dict[tuple, tuple] = {}

    def __getstate__(self) -> dict:
        return {}  # a copy begins without graphs, which cannot be copied

    def __setstate__(self, state: dict) -> None:
        self.__init__()

    def __len__(self) -> int:
        return len(self._graphs)

    def clear(self) -> None:
        """Give the memory of the graphs back."""
        self.__init__()

    def applies_to(self, x: torch.Tensor) -> bool:
        """Whether a call with ``x`` may be replayed, now or when it comes again."""
        is_at_work = torch.is_grad_enabled() or torch.jit.is_tracing()
        return x.device.type == "cuda" and not is_at_work

    def __call__(
        self, function: Callable, modules: Sequence[nn.Module], *inputs: torch.Tensor
    ) -> object:
        """What ``function`` returns for ``inputs``; the thread's next such call may overwrite it.

        Args:
            function: a module or a method of one, which returns tensors in any nesting of tuples,
                lists and dictionaries, and does not wait for the GPU meanwhile.
            modules: whose weights it reads.
            inputs: whatever else it depends on and may change.

        Raises:
            UserError: it waits, and cannot be captured.
        """
        if not self.applies_to(inputs[0]) or any(module.training for module in modules):
            return function(*inputs)
        with torch.cuda.device(inputs[0].device):
            # A thread has inputs, outputs and memory of its own: another one may still read them.
            caller = threading.get_ident(), _identity(function)
            key = (caller, *_circumstances(modules, inputs))
            if key not in self._graphs and self._last.get(caller) != key:
                self._last[caller] = key
                return function(*inputs)
            with _capturing:  # another thread may take away what is here
                if key not in self._graphs:
                    while len(self._graphs) >= MAX_GRAPHS:
                        self._graphs.popitem(last=False)
                    self._graphs[key] = self._capture(function, inputs)
                self._graphs.move_to_end(key)
                graph, static_inputs, output = self._graphs[key]
            for static, given in zip(static_inputs, inputs, strict=True):
                static.copy_(given)
            graph.replay()
            return output

    def _capture(self, function: Callable, inputs: tuple[torch.Tensor, ...]) -> tuple:
        """The graph, and the tensors that it reads and writes."""
        static_inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        before = torch.cuda.current_stream()
        # What autocast keeps would be the weights of now.
        with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
            stream = torch.cuda.Stream()
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                function(*static_inputs)  # libraries choose and load their kernels
            before.wait_stream(stream)
            try:
                # Meanwhile another thread may pin memory for a data loader. The stream's default is
                # one of the device that was the first to capture. The memory is the graph's own:
                # in shared memory, one that was captured earlier may overwrite its output.
                mode = "thread_local"
                with torch.cuda.graph(graph, stream=stream, capture_error_mode=mode):
                    output = function(*static_inputs)
            except RuntimeError as error:
                torch.cuda.set_stream(before)  # which torch forgets here
                # Nor does torch promise that its allocator is in order after this.
                raise UserError(
                    f"MODEL.CUDA_GRAPHS: {_name_of(function)} cannot be captured"
                    f" ({reason_of(error)}); set it to False"
                ) from error
        return graph, static_inputs, output


def _identity(function: Callable) -> tuple:
    """As a key that does not keep its owner, and with it the graphs, alive."""
    return id(getattr(function, "__self__", function)), _name_of(function)


def _name_of(function: Callable) -> str:
    """Of a module's class, or of a method."""
    return type(function).__name__ if isinstance(function, nn.Module) else function.__qualname__


def _circumstances(modules: Sequence[nn.Module], inputs: Sequence[torch.Tensor]) -> tuple:
    """Whatever a graph depends on."""
    sizes = tuple((x.shape, x.stride(), x.dtype, x.device) for x in inputs)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    stream, inference = torch.cuda.current_stream().cuda_stream, torch.is_inference_mode_enabled()
    precision = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    return addresses_of(modules), sizes, dtype, stream, inference, precision


def addresses_of(modules: Sequence[nn.Module]) -> tuple[int, ...]:
    """Where the weights lie; a fifth of the time that ``parameters()`` and ``buffers()`` take."""
    addresses, remaining = [], list(modules)
    while remaining:
        module = remaining.pop()
        for tensors in (module._parameters, module._buffers):
            addresses += [tensor.data_ptr() for tensor in tensors.values() if tensor is not None]
        remaining += [child for child in module._modules.values() if child is not None]
    return tuple(addresses)
