"""RoIAlign (He et al. 2017, section 3): as sums of weighted rows, and without waiting for a GPU."""

from collections.abc import Sequence

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import nn
from torch.nn import functional as F


class FastROIAlign(ROIAlign):
    """Detectron2's ``ROIAlign``; on a CPU some fifteen times as fast.

    torchvision's kernel walks through the channels one by one. Here the features are a table with a
    row of channels for each cell, and a bin of a RoI is a weighted sum of rows, which
    ``embedding_bag`` is made for. The weights of a bin are the product of those along y and along
    x, where samples that share a cell are taken together. The result lies in memory with its
    channels last.

    On other devices, in tracing, in float64, with ``sampling_ratio`` above 1 and without
    ``aligned`` it is Detectron2's, but for boxes that half precision does not round.
    """

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: features of N pictures. Shape (N, C, H, W).
            rois: picture and box, (n, x0, y0, x1, y1), in pixels of the picture. Shape (R, 5).

        Returns:
            Shape (R, C, *output_size), dtype of ``input``.
        """
        is_slow = self.sampling_ratio > 1 or not self.aligned or input.dtype == torch.float64
        if is_slow or input.device.type != "cpu" or torch.jit.is_tracing():
            if input.dtype in (torch.bfloat16, torch.float16):
                # Detectron2 rounds the boxes to the features' dtype: by pixels, in half precision.
                return super().forward(input.float(), rois.float()).to(input.dtype)
            return super().forward(input, rois)
        channels, height, width = input.shape[1:]
        # A view where the features have their channels last.
        rows = input.float().permute(0, 2, 3, 1).reshape(-1, channels)
        bins = self.output_size
        indices, weights, bags = _lookups(
            rois.detach().float(), (height, width), bins, self.spatial_scale, self.sampling_ratio
        )
        pooled = _WeightedRows.apply(rows, indices, weights, bags, len(rois) * bins[0] * bins[1])
        return pooled.view(len(rois), *bins, channels).permute(0, 3, 1, 2).to(input.dtype)


def use_fast_roi_align(pooler: ROIPooler) -> None:
    """Let every level of ``pooler`` that has a ``ROIAlign`` use :class:`FastROIAlign`, in place."""
    pooler.level_poolers = nn.ModuleList(
        FastROIAlign(x.output_size, x.spatial_scale, x.sampling_ratio, x.aligned)
        if type(x) is ROIAlign
        else x
        for x in pooler.level_poolers
    )


def pool_every_level(
    pooler: ROIPooler, features: Sequence[torch.Tensor], boxes: Sequence[Boxes]
) -> torch.Tensor:
    """What ``pooler(features, boxes)`` gives, without asking the device how many RoIs a level has.

    Each level pools all RoIs, those of other levels as empty boxes: more arithmetic, of which a GPU
    has plenty, and shapes that do not depend on the numbers, as a CUDA graph wants them.

    Args:
        features: of each level. Shape (N, C, H, W).
        boxes: of each picture; R in all.

    Returns:
        Shape (R, C, *output_size).
    """
    tensor = torch.cat([x.tensor for x in boxes])
    picture = torch.cat([x.tensor.new_full((len(x), 1), i) for i, x in enumerate(boxes)])
    levels = assign_boxes_to_levels(
        [Boxes(tensor)],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
    pooled = None
    for level, (of_level, pool) in enumerate(zip(features, pooler.level_poolers, strict=True)):
        is_here = (levels == level)[:, None]
        found = pool(of_level, torch.cat([picture, tensor.masked_fill(~is_here, 0)], dim=1))
        pooled = found if pooled is None else found.where(is_here[..., None, None], pooled)
    return pooled


def _lookups(
    rois: torch.Tensor,
    feature_hw: tuple[int, int],
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Which rows, with which weights, each bin is the sum of.

    Returns:
        For each group of RoIs with equally many samples a bin: rows, int64 (B, K), their weights,
        float32 (B, K), and the numbers of the bins, int64 (B,), RoI by RoI and row by row.
    """
    height, width = feature_hw
    x0, y0, x1, y1 = (rois[:, 1:] * scale - 0.5).unbind(dim=1)
    bin_height, bin_width = (y1 - y0) / bins[0], (x1 - x0) / bins[1]
    if sampling_ratio:
        grid = torch.full((len(rois), 2), sampling_ratio, dtype=torch.int64)
    else:
        grid = torch.stack([bin_height, bin_width], dim=1).ceil().long()
    first_row = rois[:, 0].long() * (height * width)
    numbers = torch.arange(len(rois) * bins[0] * bins[1]).view(len(rois), bins[0] * bins[1])
    indices, weights, bags = [], [], []
    groups, group_of = torch.unique(grid, dim=0, return_inverse=True)
    for group, (samples_y, samples_x) in enumerate(groups.tolist()):
        if samples_y < 1 or samples_x < 1:
            continue  # no sample in an empty RoI
        chosen = torch.nonzero(group_of == group)[:, 0]
        ys, weights_y = _along(y0[chosen], bin_height[chosen], samples_y, bins[0], height)
        xs, weights_x = _along(x0[chosen], bin_width[chosen], samples_x, bins[1], width)
        start = first_row[chosen][:, None, None]
        rows = (start + ys * width)[:, :, None, :, None] + xs[:, None, :, None, :]
        products = weights_y[:, :, None, :, None] * weights_x[:, None, :, None, :]
        cells = (samples_y + 1) * (samples_x + 1)
        indices.append(rows.reshape(-1, cells))
        weights.append(products.reshape(-1, cells))
        bags.append(numbers[chosen].flatten())
    return indices, weights, bags


def _along(
    start: torch.Tensor, bin_size: torch.Tensor, samples: int, bins: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells of each bin along one axis, and their weights.

    Neighbouring samples of a bin are a cell apart at most, so ``samples`` + 1 cells hold them all.

    Args:
        start, bin_size: of each RoI, in cells. Shape (R,).
        size: number of cells along the axis.

    Returns:
        int64 and float32, shape (R, bins, samples + 1).
    """
    bin_size = bin_size[:, None, None]
    number = torch.arange(bins, dtype=torch.float32)[:, None]
    steps = torch.arange(samples, dtype=torch.float32) + 0.5
    # In the order of torchvision's kernel, for the same rounding.
    position = start[:, None, None] + number * bin_size + steps * bin_size / samples
    share = ((position >= -1) & (position <= size)).float() / samples
    position = position.clamp(0, size - 1)
    low = position.floor().clamp(max=max(size - 2, 0))
    first = low[..., :1].clamp(max=max(size - 1 - samples, 0))
    low = low.minimum(first + samples - 1)  # rounding may put a sample a cell too far
    high_share = position - low
    cell = (low - first).long()
    weights = torch.zeros((*position.shape[:2], samples + 1))
    weights.scatter_add_(2, cell, (1 - high_share) * share)
    if size > 1:
        weights.scatter_add_(2, cell + 1, high_share * share)
    cells = (first.long() + torch.arange(samples + 1)).clamp(max=size - 1)
    return cells, weights


class _WeightedRows(torch.autograd.Function):
    """Bag b is the sum of some rows times their weights: the product of a sparse matrix and rows.

    Backward is the product with its transpose, in one go for all groups: autograd's own would make
    a gradient of the size of the features for each.
    """

    @staticmethod
    def forward(ctx, rows, indices, weights, bags, num_bags):
        ctx.save_for_backward(*indices, *weights, *bags)
        ctx.num_rows = len(rows)
        result = rows.new_zeros((num_bags, rows.shape[1]))
        for group, weight, bag in zip(indices, weights, bags, strict=True):
            result[bag] = F.embedding_bag(group, rows, mode="sum", per_sample_weights=weight)
        return result

    @staticmethod
    def backward(ctx, gradient):
        saved = ctx.saved_tensors
        number = len(saved) // 3
        if not number:
            return gradient.new_zeros((ctx.num_rows, gradient.shape[1])), None, None, None, None
        indices, weights, bags = (saved[i * number : (i + 1) * number] for i in range(3))
        of_bag = torch.cat(
            [bag[:, None].expand_as(i).flatten() for bag, i in zip(bags, indices, strict=True)]
        )
        row = torch.cat([x.flatten() for x in indices])
        weight = torch.cat([x.flatten() for x in weights])
        order = torch.argsort(row)
        ends = torch.bincount(row, minlength=ctx.num_rows).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        summed = F.embedding_bag(
            of_bag[order],
            gradient.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=weight[order],
        )
        return summed, None, None, None, None
