"""A module's kernels, launched at once."""

import logging
import threading

import torch
from torch import nn

logger = logging.getLogger(__name__)

MAX_GRAPHS = 8  # each keeps a picture's features
_capturing = threading.Lock()  # not of an object: models are copied


class GraphedForward:
    """Calls a module at inference; on a GPU, inputs of a shape that comes again replay a graph.

    A body of a hundred layers has several hundred kernels, which take a fast GPU less time than
    Python takes to launch them (CUDA graphs: see torch.cuda.CUDAGraph). Weights are read where they
    lie, so that a graph computes with those of the moment. On a CPU, with gradients, in tracing and
    where the module cannot be captured, it is the plain call.

    Args:
        module: takes one tensor, and returns a dictionary of tensors, which the thread's next call
            overwrites.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._graphs: dict[tuple, tuple] = {}
        self._seen: set[tuple] = set()
        self._pool = None

    def __call__(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the module returns for ``x``."""
        plain = x.device.type != "cuda" or torch.is_grad_enabled() or self._module.training
        if plain or torch.jit.is_tracing():
            return self._module(x)
        # A graph reads the weights at their addresses, which moving the module changes.
        address = next(self._module.parameters()).data_ptr()
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        # A thread has inputs and outputs of its own: another one may still read them.
        key = (threading.get_ident(), address, x.shape, x.stride(), x.dtype, dtype)
        if key not in self._graphs:
            if key not in self._seen or len(self._graphs) >= MAX_GRAPHS:
                self._seen.add(key)
                return self._module(x)
            with _capturing:
                self._graphs[key] = self._capture(x)
        graph, static_input, output = self._graphs[key]
        if graph is None:
            return self._module(x)
        static_input.copy_(x)
        graph.replay()
        return output

    def clear(self) -> None:
        """Give the memory of the graphs back."""
        self._graphs.clear()
        self._seen.clear()
        self._pool = None

    def _capture(self, x: torch.Tensor) -> tuple:
        """The graph, and the tensors that it reads and writes; None thrice where there is none."""
        static_input = x.clone()
        graph = torch.cuda.CUDAGraph()
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # What autocast keeps would be the weights of now.
        with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._module(static_input)  # libraries choose and load their kernels
            torch.cuda.current_stream().wait_stream(stream)
            try:
                # Meanwhile another thread may pin memory for a data loader.
                mode = "thread_local"
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode=mode):
                    output = self._module(static_input)
            except RuntimeError as error:
                logger.info(f"No CUDA graph of {type(self._module).__name__}: {error}")
                return None, None, None
        self._pool = graph.pool()
        return graph, static_input, output
