"""An exported model in the place of the model that it was made from."""

from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode
from torch import nn

from project.errors import UserError
from project.runtime import is_exported
from project.runtime.detections import Detections

# What it takes from a config.
_THRESHOLDS = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_MASK_HEAD.THRESH_TEST")
# What is in the file: keys, and beginnings of keys.
_FIXED = (
    *("MODEL.", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "INPUT.FORMAT"),
    *("INPUT.RESIZE_BACKEND", "INPUT.REDUCED_DECODING"),
    *("TEST.AUG.", "TEST.DETECTIONS_PER_IMAGE"),
)


class ExportedModel(nn.Module):
    """Runs an ONNX file on batches of Detectron2's test loaders; see :func:`with_whole_pictures`.

    Args:
        path: of the file.
        cfg: its config; the thresholds of scores and of masks may be others.
    """

    def __init__(self, path: str, cfg: CfgNode):
        super().__init__()
        # Here, because most programs do without onnxruntime.
        from project.runtime.detector import OnnxDetector

        self.detector = OnnxDetector(
            path,
            score_threshold=cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            mask_threshold=cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST,
        )

    def forward(self, batched_inputs: Sequence[dict]) -> list[dict[str, Detections]]:
        """``batched_inputs``: records with ``image``, uint8, RGB, shape (3, H, W)."""
        pictures = [record["image"].permute(1, 2, 0).numpy() for record in batched_inputs]
        return [{"detections": found} for found in self.detector.predict(pictures)]


def require_keys_of_weights(weights: str, pairs: Mapping[str, str]) -> None:
    """Raise :class:`UserError` for a KEY VALUE pair that evaluating ``weights`` would not heed."""
    if not is_exported(weights):
        return
    if pairs.get("MODEL.DEVICE", "cpu") != "cpu":
        raise UserError(f"{weights} is evaluated on the CPU; leave MODEL.DEVICE out")
    for key in pairs:
        is_free = key in ("MODEL.WEIGHTS", "MODEL.DEVICE", *_THRESHOLDS)
        if key.startswith(_FIXED) and not is_free:
            raise UserError(
                f"{key} is fixed in {weights}; leave it out, or export the model with it (of what a"
                f" file holds only {' and '.join(_THRESHOLDS)} can be changed)"
            )


def with_whole_pictures(cfg: CfgNode) -> CfgNode:
    """A config whose test loaders give pictures as they are; the file resizes them itself."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.INPUT.FORMAT = "RGB"
    cfg.TEST.AUG.ENABLED = False
    cfg.freeze()
    return cfg
