"""An exported model in the place of the model that it was made from."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from project.runtime.detections import Detections


class ExportedModel(nn.Module):
    """Runs an ONNX file on batches of Detectron2's test loaders; see :func:`with_whole_pictures`.

    Args:
        path: of the file.
        cfg: its config; ``MODEL.ROI_HEADS.SCORE_THRESH_TEST`` may be another one.
    """

    def __init__(self, path: str, cfg: CfgNode):
        super().__init__()
        # Here, because most programs do without onnxruntime.
        from project.runtime.detector import OnnxDetector

        threshold = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        self.detector = OnnxDetector(path, score_threshold=threshold)

    def forward(self, batched_inputs: Sequence[dict]) -> list[dict[str, Detections]]:
        """``batched_inputs``: records with ``image``, uint8, RGB, shape (3, H, W)."""
        pictures = [record["image"].permute(1, 2, 0).numpy() for record in batched_inputs]
        return [{"detections": found} for found in self.detector.predict(pictures)]


def with_whole_pictures(cfg: CfgNode) -> CfgNode:
    """A config whose test loaders give pictures as they are; the file resizes them itself."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.INPUT.FORMAT = "RGB"
    cfg.TEST.AUG.ENABLED = False
    cfg.freeze()
    return cfg
