"""Which anchors are positive although no object overlaps them well."""

import torch
from detectron2.modeling.matcher import Matcher


class AnchorMatcher(Matcher):
    """Detectron2's ``Matcher`` with mmdetection's rules for low-quality matches.

    Every object's best anchors are positive, however little they overlap it (Faster R-CNN, section
    3.1.2). mmdetection's ``MaxIoUAssigner`` asks them for some overlap, and matches them to that
    object even where another one overlaps them more.

    Args:
        thresholds, labels: see ``Matcher``.
        min_iou: what the best anchors of an object must overlap it by; 0 is Detectron2's rule.
        reassign: match them to that object (of several, to the last), not to the one that they
            overlap most, which is Detectron2's rule.
    """

    def __init__(
        self, thresholds: list[float], labels: list[int], *, min_iou: float, reassign: bool
    ):
        super().__init__(thresholds, labels, allow_low_quality_matches=True)
        self.min_iou = min_iou
        self.reassign = reassign

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            match_quality_matrix: IoU of M objects and N anchors. Shape (M, N).

        Returns:
            The object of each anchor, int64, and its label, int8. Shapes (N,).
        """
        matches, labels = super().__call__(match_quality_matrix)
        if self.reassign and match_quality_matrix.numel():
            best = self._best_anchors(match_quality_matrix)
            # Of equal values argmax takes the first, and of (M, N) numbers bytes are the smallest.
            last = len(best) - 1 - best.flip(0).view(torch.uint8).argmax(dim=0)
            matches = torch.where(best.any(dim=0), last, matches)
        return matches, labels

    def set_low_quality_matches_(
        self, match_labels: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Label every object's best anchors as positive, in place."""
        match_labels[self._best_anchors(match_quality_matrix).any(dim=0)] = 1

    def _best_anchors(self, match_quality_matrix: torch.Tensor) -> torch.Tensor:
        """Whether object m has no better anchor than n. bool, shape (M, N)."""
        best = match_quality_matrix.max(dim=1, keepdim=True).values
        return (match_quality_matrix == best) & (best >= self.min_iou)
