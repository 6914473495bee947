"""The masks of RoIs' objects, without a copy of a whole mask for each RoI."""

import torch
from detectron2.structures import BitMasks, PolygonMasks
from torchvision.ops import roi_align


class MatchedMasks:
    """For each of R RoIs, which of a picture's masks is its object's.

    Stands in for ``gt_masks`` of sampled RoIs: indexing it moves indices, not masks of the size of
    the picture (512 of them would take half a gigabyte).

    Args:
        masks: of the picture's M objects.
        indices: of each RoI's object in ``masks``. int64, shape (R,).
    """

    def __init__(self, masks: BitMasks | PolygonMasks, indices: torch.Tensor):
        self.masks = masks
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: torch.Tensor | slice) -> "MatchedMasks":
        return MatchedMasks(self.masks, self.indices[item])

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """The targets of a mask head.

        Bit-masks are sampled with RoIAlign as in ``BitMasks.crop_and_resize``. Polygons are
        rasterised as in ``PolygonMasks.crop_and_resize``, but for boxes with a side below one
        pixel, which count as one pixel wide as in mmdetection's (mmdet/structures/mask).

        Args:
            boxes: of the RoIs, XYXY. Shape (R, 4).
            mask_size: side of the targets.

        Returns:
            bool, shape (R, mask_size, mask_size).
        """
        if isinstance(self.masks, PolygonMasks):
            far = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
            boxes = torch.cat([boxes[:, :2], far], dim=1)
            return self.masks[self.indices].crop_and_resize(boxes, mask_size)
        rois = torch.cat([self.indices[:, None].to(boxes), boxes], dim=1)
        bitmaps = self.masks.tensor[:, None].to(boxes)
        values = roi_align(bitmaps, rois, mask_size, 1.0, sampling_ratio=0, aligned=True)
        return values[:, 0] >= 0.5
