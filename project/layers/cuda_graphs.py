"""A module's kernels, launched at once (CUDA graphs)."""

import threading
from collections import OrderedDict

import torch
from torch import nn

from project.errors import UserError

MAX_GRAPHS = 8  # each keeps a batch's features
_capturing = threading.Lock()


class GraphedCalls:
    """Calls modules at inference; what is called again with an input of the same size is replayed.

    A body of a hundred layers has several hundred kernels, which take a fast GPU less time than
    Python takes to launch them. A graph reads weights where they lie, so that it computes with
    those of the moment; where they lie elsewhere, there is another graph. On a CPU, with gradients
    and in tracing it is the plain call.
    """

    def __init__(self):
        self._graphs: OrderedDict[tuple, tuple] = OrderedDict()
        self._last: dict[int, tuple] = {}
        self._pools: dict[int, tuple] = {}

    def __getstate__(self) -> dict:
        return {}  # a copy begins without graphs, which cannot be copied

    def __setstate__(self, state: dict) -> None:
        self.__init__()

    def __len__(self) -> int:
        return len(self._graphs)

    def clear(self) -> None:
        """Give the memory of the graphs back."""
        self.__init__()

    def __call__(self, module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What ``module`` returns for ``x``; the thread's next call may overwrite it.

        Args:
            module: returns a dictionary of tensors, and does not wait for the GPU meanwhile.

        Raises:
            UserError: it does, and cannot be captured.
        """
        plain = x.device.type != "cuda" or torch.is_grad_enabled() or module.training
        if plain or torch.jit.is_tracing():
            return module(x)
        with torch.cuda.device(x.device):
            # A thread has inputs, outputs and memory of its own: another one may still read them.
            thread = threading.get_ident()
            key = (thread, *_circumstances(module, x))
            if key not in self._graphs and self._last.get(thread) != key:
                self._last[thread] = key
                return module(x)
            with _capturing:  # another thread may take away what is here
                if key not in self._graphs:
                    while len(self._graphs) >= MAX_GRAPHS:
                        self._graphs.popitem(last=False)
                    self._graphs[key] = self._capture(module, x, thread)
                self._graphs.move_to_end(key)
                graph, static_input, output = self._graphs[key]
            static_input.copy_(x)
            graph.replay()
            return output

    def _capture(self, module: nn.Module, x: torch.Tensor, thread: int) -> tuple:
        """The graph, and the tensors that it reads and writes."""
        static_input = x.clone()
        graph = torch.cuda.CUDAGraph()
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        before = torch.cuda.current_stream()
        # What autocast keeps would be the weights of now.
        with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
            stream = torch.cuda.Stream()
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                module(static_input)  # libraries choose and load their kernels
            before.wait_stream(stream)
            try:
                # Meanwhile another thread may pin memory for a data loader.
                mode, pool = "thread_local", self._pools.get(thread)
                # Its own default is a stream of the device that was the first to capture.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode=mode):
                    output = module(static_input)
            except RuntimeError as error:
                torch.cuda.set_stream(before)  # which torch forgets here
                # Nor does torch promise that its allocator is in order after this.
                raise UserError(
                    f"MODEL.CUDA_GRAPHS: {type(module).__name__} cannot be captured"
                    f" ({str(error).splitlines()[0]}); set it to False"
                ) from error
        self._pools[thread] = graph.pool()
        return graph, static_input, output


def _circumstances(module: nn.Module, x: torch.Tensor) -> tuple:
    """Whatever a graph depends on."""
    weights = tuple(tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers()))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    stream, inference = torch.cuda.current_stream().cuda_stream, torch.is_inference_mode_enabled()
    tf32 = torch.backends.cudnn.allow_tf32
    return weights, x.shape, x.stride(), x.dtype, dtype, x.device, stream, inference, tf32
