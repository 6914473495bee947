"""From Detectron2's instances to detections."""

import numpy as np
from detectron2.structures import Instances

from project.data.categories import Categories
from project.runtime.detections import Detections
from project.structures.pasted_masks import PastedMasks


def to_detections(instances: Instances, categories: Categories) -> Detections:
    """What a model has found in a picture, with the ids and names of its JSON.

    Args:
        instances: ``pred_boxes`` (N, 4) XYXY in pixels of the picture, ``scores`` (N,),
            ``pred_classes`` (N,) in 0..K-1 and, if there are masks, ``pred_masks``,
            :class:`PastedMasks` or bool (N, H, W).
    """
    instances = instances.to("cpu")
    classes = instances.pred_classes.numpy()
    masks = None
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        masks = masks.numpy() if isinstance(masks, PastedMasks) else np.asarray(masks)
    return Detections(
        instances.pred_boxes.tensor.float().numpy(),
        instances.scores.float().numpy(),
        np.array(categories.ids, dtype=np.int64)[classes],
        tuple(categories.names[index] for index in classes),
        masks,
        instances.image_size,
    )
