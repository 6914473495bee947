"""Write a detector as one ONNX file, with what is known about it."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from onnx import numpy_helper

from project.data.categories import Categories
from project.errors import UserError, reason_of
from project.export.graph import DetectorGraph
from project.runtime.detector import (
    FORMAT,
    IMAGE,
    MASKS,
    OUTPUTS,
    PASTE_MASKS,
    PRECISION,
    SCORE_THRESHOLD,
)
from project.versions import versions

# The first with RoIAlign on half-pixel centres is 16. onnxruntime has 17 since 2022.
OPSET = 17


def export_onnx(
    model: GeneralizedRCNN, cfg: CfgNode, categories: Categories, path: str | os.PathLike
) -> None:
    """Write ``model`` as :class:`project.runtime.detector.OnnxDetector` reads it.

    Args:
        model: in evaluation mode, on the CPU, computing in float32.
        cfg: its config.

    Raises:
        UserError: the model has operations that ONNX has not.
    """
    graph = DetectorGraph(model, cfg, categories).eval()
    # Noise, and no threshold: a trace knows only the branches that are taken with some objects.
    side = max(cfg.INPUT.MIN_SIZE_TEST, 64)
    noise = np.random.default_rng(0).integers(0, 256, (side, side * 5 // 4, 3), dtype=np.uint8)
    inputs = torch.from_numpy(noise), torch.tensor(-1.0), torch.tensor(True)
    names = [*OUTPUTS, MASKS] if cfg.MODEL.MASK_ON else list(OUTPUTS[:3])
    axes = {IMAGE: {0: "height", 1: "width"}, **{name: {0: "objects"} for name in names}}
    if cfg.MODEL.MASK_ON:
        axes[MASKS] |= {1: "height", 2: "width"}
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Of branches on sizes, of Detectron2's and torchvision's assertions: the checks that
            # follow an export are about them.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                inputs,
                str(unfinished),
                dynamo=False,
                opset_version=OPSET,
                input_names=[IMAGE, SCORE_THRESHOLD, PASTE_MASKS],
                output_names=names,
                dynamic_axes=axes,
            )
        proto = onnx.load(str(unfinished))
        _free_numbers_of_objects(proto.graph)
        _complete(proto, cfg, categories)
        onnx.save(proto, str(unfinished))
        unfinished.replace(path)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise UserError(
            f"{cfg.MODEL.TIMM.NAME} cannot be exported to ONNX: {reason_of(error)}"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _free_numbers_of_objects(graph: onnx.GraphProto) -> None:
    """Let as many proposals and detections pass as there are.

    Detectron2 splits a batch's tensors into those of each picture, and a trace fixes the sizes. Of
    one picture, the part is the whole.
    """
    for node in graph.node:
        if node.op_type == "Split" and len(node.output) == 1:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]


def _complete(proto: onnx.ModelProto, cfg: CfgNode, categories: Categories) -> None:
    """Make all inputs but the picture optional, and add the metadata."""
    threshold = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    defaults = {SCORE_THRESHOLD: np.float32(threshold), PASTE_MASKS: np.bool_(True)}
    for entry in proto.graph.input:
        if entry.name in defaults:
            default = numpy_helper.from_array(np.array(defaults[entry.name]), entry.name)
            proto.graph.initializer.append(default)
    config = cfg.dump()
    metadata = {
        "format": FORMAT,
        PRECISION: "float32",
        "categories": json.dumps(categories.to_mapping()),
        "score_threshold": str(threshold),
        "mask_threshold": str(cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST),
        "config": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "versions": json.dumps(versions()),
    }
    onnx.helper.set_model_props(proto, metadata)
    proto.producer_name = "cascade-mask-rcnn"
