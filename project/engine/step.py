"""One iteration of training."""

import time
import zlib
from collections.abc import Iterator

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn
from torch.amp import GradScaler, autocast

from project.seeding import sampling_seeded, seed_generators

_GLOBAL, _SAMPLING = 2, 3  # what a seed is for; project.data.loading has 0 and 1


class TrainStep(SimpleTrainer):
    """Detectron2's ``SimpleTrainer``, whose random draws depend on seed and iteration only.

    Args:
        model: returns a dictionary of losses for a batch.
        optimizer: of the model's parameters.
        seed: of RoI and anchor sampling, dropout and the like.
        amp_dtype: ``torch.bfloat16`` or ``torch.float16`` for mixed precision, None for float32.

    Attributes:
        batches: an iterator over batches; to be set before the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        amp_dtype: torch.dtype | None = None,
    ):
        super().__init__(model, [], optimizer)
        self.seed = seed
        self.amp_dtype = amp_dtype
        self.device_type = next(model.parameters()).device.type
        # bfloat16 has the range of float32.
        self.grad_scaler = GradScaler(self.device_type, enabled=amp_dtype == torch.float16)
        self.batches: Iterator[list[dict]] = iter(())

    def run_step(self) -> None:
        """Take a batch, and the optimizer's step on its losses.

        Raises:
            FloatingPointError: a loss is infinite or NaN.
        """
        start = time.perf_counter()
        batch = next(self.batches)
        data_time = time.perf_counter() - start
        seed_generators(self.seed, _GLOBAL, self.iter, comm.get_rank())
        ids = [record["image_id"] for record in batch]
        keys = [(self.seed, _SAMPLING, self.iter, _number_of(image_id)) for image_id in ids]
        mixed = self.amp_dtype is not None
        with sampling_seeded(keys), autocast(self.device_type, self.amp_dtype, enabled=mixed):
            losses = self.model(batch)
            total = sum(losses.values())
        self.optimizer.zero_grad()
        self.grad_scaler.scale(total).backward()
        self._require_finite(losses, ids)
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _require_finite(self, losses: dict[str, torch.Tensor], image_ids: list) -> None:
        values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
        if not all(map(_is_finite, values)):
            shown = ", ".join(f"{n} {v:.4g}" for n, v in zip(losses, values, strict=True))
            rates = sorted({group["lr"] for group in self.optimizer.param_groups})
            raise FloatingPointError(
                f"iteration {self.iter}, images {image_ids}: a loss is not finite ({shown});"
                f" learning rate {rates[-1]:.3g}: lower SOLVER.BASE_LR, or look at these images"
            )

    def state_dict(self) -> dict:
        """Of optimizer and scaler; the seed is the state of every random generator."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """As :meth:`state_dict` left it."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.seed = state_dict["seed"]


def _number_of(image_id: int | str) -> int:
    return zlib.crc32(str(image_id).encode())


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
