"""One iteration of training."""

import time
import zlib
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import distributed, nn
from torch.amp import GradScaler, autocast
from torch.nn.parallel import DistributedDataParallel

from project.errors import UserError
from project.seeding import sampling_seeded, seed_generators

_GLOBAL, _SAMPLING = 2, 3  # what a seed is for; project.data.loading has 0 and 1


class TrainStep(SimpleTrainer):
    """Detectron2's ``SimpleTrainer``, whose random draws depend on seed and iteration only.

    Args:
        model: returns a dictionary of losses for a batch.
        optimizer: of the model's parameters.
        seed: of RoI and anchor sampling, dropout and the like.
        dtype: of convolutions and linear layers; other than float32 it is mixed precision.
        accumulate: take the batch in so many parts, one after the other.
        detect_anomaly: stop at the operation whose gradient is NaN.

    Attributes:
        batches: an iterator over batches; to be set before the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        dtype: torch.dtype = torch.float32,
        accumulate: int = 1,
        detect_anomaly: bool = False,
    ):
        super().__init__(model, [], optimizer)
        _complete_momentum(optimizer)
        self.seed = seed
        self.dtype = dtype
        self.accumulate = accumulate
        self.detect_anomaly = detect_anomaly
        self.device = next(model.parameters()).device
        # bfloat16 has the range of float32.
        self.grad_scaler = GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.batches: Iterator[list[dict]] = iter(())

    def run_step(self) -> None:
        """Take a batch, and the optimizer's step on its losses.

        Raises:
            FloatingPointError: a loss is infinite or NaN, on this process or another.
            UserError: the memory does not suffice, or BatchNorm has one value a channel.
        """
        start = time.perf_counter()
        batch = next(self.batches)
        data_time = time.perf_counter() - start
        seed_generators(self.seed, _GLOBAL, self.iter, comm.get_rank())
        self.optimizer.zero_grad()
        try:
            losses = self._add_gradients(batch)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise UserError(
                    "BatchNorm cannot learn from one picture: MODEL.TIMM.NORM FrozenBN, a larger"
                    f" SOLVER.IMS_PER_BATCH or a smaller SOLVER.ACCUMULATE ({self.accumulate})"
                ) from error
            raise
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise UserError(self._out_of_memory_message(batch)) from error
            if "returned nan values" in str(error):  # SOLVER.DETECT_ANOMALY
                where = f"iteration {self.iter}, images {_image_ids(batch)}"
                raise FloatingPointError(f"{where}: {error}") from error
            raise
        self._require_finite(losses, batch)
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _add_gradients(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        """The batch's losses, whose gradients are added to those of the parameters."""
        size = len(batch) // self.accumulate
        parts = [batch[first : first + size] for first in range(0, len(batch), size)]
        sums: dict[str, torch.Tensor] = {}
        for part in parts:
            # Gradients are averaged over the processes once, with the last part.
            waits = isinstance(self.model, DistributedDataParallel) and part is not parts[-1]
            with (
                torch.autograd.set_detect_anomaly(self.detect_anomaly),
                self.model.no_sync() if waits else nullcontext(),
            ):
                losses = self._losses(part)
                total = sum(losses.values())
                self.grad_scaler.scale(total / len(parts)).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / len(parts)
        return sums

    def _losses(self, part: list[dict]) -> dict[str, torch.Tensor]:
        keys = [
            (self.seed, _SAMPLING, self.iter, _number_of(record["image_id"])) for record in part
        ]
        mixed = self.dtype != torch.float32
        precision = autocast(self.device.type, self.dtype, enabled=mixed)
        with sampling_seeded(keys, self.device), precision:
            return self.model(part)

    def _require_finite(self, losses: dict[str, torch.Tensor], batch: list[dict]) -> None:
        """Raise the same error on every process if a loss of any is not finite."""
        values = torch.stack(list(losses.values()))
        bad = (~values.isfinite()).any().float()
        if comm.get_world_size() > 1:
            # Else the others would take a step with the gradients of this one, and save it.
            distributed.all_reduce(bad)
        if bad:
            messages = comm.all_gather(self._not_finite_message(losses, batch))
            raise FloatingPointError(next(filter(None, messages)))

    def _not_finite_message(self, losses: dict[str, torch.Tensor], batch: list[dict]) -> str:
        if all(loss.isfinite() for loss in losses.values()):
            return ""
        shown = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        rates = sorted({group["lr"] for group in self.optimizer.param_groups})
        return (
            f"iteration {self.iter}, images {_image_ids(batch)}: a loss is not finite ({shown});"
            f" {self._largest_gradient()}; learning rate {rates[-1]:.3g}: lower SOLVER.BASE_LR, or"
            " look at these images"
        )

    def _largest_gradient(self) -> str:
        largest, where, not_finite = 0.0, "", 0
        gradients = [(n, p.grad) for n, p in self.model.named_parameters() if p.grad is not None]
        for name, gradient in gradients:
            finite = gradient.isfinite()
            not_finite += not finite.all()
            value = gradient.where(finite, 0).abs().max().item() / self.grad_scaler.get_scale()
            if value > largest:
                largest, where = value, f" ({name.removeprefix('module.')})"
        return (
            f"largest gradient {largest:.3g}{where}, NaN or infinite in {not_finite} of"
            f" {len(gradients)} tensors"
        )

    def _out_of_memory_message(self, batch: list[dict]) -> str:
        sizes = ", ".join("x".join(map(str, record["image"].shape[1:])) for record in batch)
        can_accumulate = len(batch) > self.accumulate
        remedies = [
            *([f"raise SOLVER.ACCUMULATE ({self.accumulate})"] if can_accumulate else []),
            *(["set SOLVER.AMP.ENABLED True"] if self.dtype == torch.float32 else []),
            "lower SOLVER.IMS_PER_BATCH, MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE or the pictures'"
            " size: INPUT.LSJ.SIZE or, without LSJ, INPUT.MIN_SIZE_TRAIN and INPUT.MAX_SIZE_TRAIN",
        ]
        return (
            f"out of memory in iteration {self.iter}, images {_image_ids(batch)} of {sizes} pixels"
            f" (height x width): {', or '.join(remedies)}"
        )

    def state_dict(self) -> dict:
        """Of optimizer and scaler; the seed is the state of every random generator."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "parameters": self._parameter_names(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """As :meth:`state_dict` left it, but for the optimizer's settings: those stay.

        What did not train before has no momentum.
        """
        names = self._parameter_names()
        # torch goes by position, which depends on what is frozen and which settings are equal.
        names_before = state_dict.get("parameters", names)
        before = {names_before[i]: x for i, x in state_dict["optimizer"]["state"].items()}
        state = {i: before[name] for i, name in enumerate(names) if name in before}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        _complete_momentum(self.optimizer)
        if state_dict["grad_scaler"]:  # empty where there was nothing to scale, on another machine
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.seed = state_dict["seed"]

    def _parameter_names(self) -> list[str]:
        """Of the parameters, in the optimizer's order."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        groups = self.optimizer.param_groups
        # With several processes, the model is in a module.
        return [names[p].removeprefix("module.") for group in groups for p in group["params"]]


def _complete_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter a momentum that a fused step can use.

    It wants all of those that have a gradient to have one, or none, and which ones have a gradient
    may change: without one, it is of zeros, which changes nothing. And it wants its numbers as the
    parameter has them in memory, which depends on the machine (channels last or not); torch loads
    them as they were saved.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else []:
            state = optimizer.state[parameter]
            momentum = torch.zeros_like(parameter)
            if state.get("momentum_buffer") is not None:
                momentum.copy_(state["momentum_buffer"])
            state["momentum_buffer"] = momentum


def _number_of(image_id: int | str) -> int:
    return zlib.crc32(str(image_id).encode())


def _image_ids(batch: list[dict]) -> list:
    return [record["image_id"] for record in batch]


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception class of its own.
    on_cpu = "DefaultCPUAllocator" in str(error)
    return on_cpu or isinstance(error, torch.cuda.OutOfMemoryError)
