"""What mmdetection computed, and the same from our model.

Two recordings have the same layout: tests/fixtures/mmdetection.npz (generated pictures; see
tests/tools/record_mmdetection.py), and a larger one on photographs that is not in the repository.
"""

import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from project import load_weights
from project.checkpoint.mmdetection import MMDETECTION_NAMES
from project.config import load_config
from tests.helpers import FULL_CONFIG, SHARED
from tests.tools import reference_inputs
from tests.tools.seeded_checkpoint import seeded_state

FIXTURE = Path(__file__).parents[1] / "fixtures/mmdetection.npz"
STAGES = range(3)
PICTURES = range(2)


class Reference:
    """A recording, our model with its weights, and what our model computes on its inputs.

    Args:
        kind: "generated" or "photographs".
        folder: for the checkpoint file.
    """

    def __init__(self, kind: str, folder: Path):
        self.kind = kind
        recorded = FIXTURE if kind == "generated" else SHARED / "reference/ref_seed0.npz"
        with np.load(recorded) as file:
            self.arrays: Mapping[str, np.ndarray] = dict(file)
        self.checkpoint = folder / f"{kind}.pth"
        # The samplers of the recording take everything.
        opts = ["MODEL.DEVICE", "cpu", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", str(10**7)]
        self.model = build_model(load_config(str(FULL_CONFIG), opts, default_config="")).eval()
        self.state = self._state()
        torch.save({"meta": {"CLASSES": ("a", "b")}, "state_dict": self.state}, self.checkpoint)
        self.report = load_weights(self.model, str(self.checkpoint))

    def _state(self) -> dict[str, torch.Tensor]:
        """The checkpoint that the recording was made with, under mmdetection's names."""
        if self.kind == "photographs":
            path = SHARED / "reference/make_checkpoint.py"
            spec = importlib.util.spec_from_file_location("make_checkpoint", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return dict(module.make_state_dict(0))
        shapes = {
            MMDETECTION_NAMES.to_theirs(name): tuple(tensor.shape)
            for name, tensor in self.model.state_dict().items()
        }
        values = seeded_state(shapes, reference_inputs.SEED)
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def has(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def difference(self, name: str, ours: torch.Tensor | np.ndarray) -> float:
        """Largest absolute difference of the recorded rows, in the recorded array's own unit."""
        theirs = self[name]
        return float(np.abs(self.rows(name, ours) - theirs).max()) if theirs.size else 0.0

    def relative_difference(self, name: str, ours: torch.Tensor | np.ndarray) -> float:
        """:meth:`difference` in standard deviations of the recorded array."""
        return self.difference(name, ours) / float(self[name].std())

    def rows(self, name: str, ours: torch.Tensor | np.ndarray) -> np.ndarray:
        """Those rows of ``ours`` that were recorded."""
        ours = np.asarray(ours)
        theirs = self[name]
        if f"{name}_step" in self.arrays:
            ours = ours[:: int(self[f"{name}_step"])]
        elif len(ours) != len(theirs):
            ours = ours[:: len(ours) // len(theirs)]
        assert ours.shape == theirs.shape, f"{name}: {ours.shape} and {theirs.shape}"
        return ours

    def network_input(self, index: int) -> torch.Tensor:
        """Shape (1, 3, H, W), normalised and padded."""
        name = f"img{index}_input"
        values = self[name] if self.has(name) else reference_inputs.network_input(index)
        return torch.from_numpy(values)

    def sizes(self, index: int) -> tuple[int, ...]:
        """Height and width of the original picture, of the resized one, and padded."""
        return tuple(self[f"img{index}_sizes"].tolist())

    def images(self, index: int) -> ImageList:
        return ImageList(self.network_input(index), [self.sizes(index)[2:4]])

    @cached_property
    def inference(self) -> list["Inference"]:
        return [Inference(self, index) for index in PICTURES]

    @cached_property
    def training(self) -> "Training":
        return Training(self)


class Inference:
    """Our model's features, proposals and detections on one picture."""

    @torch.no_grad()
    def __init__(self, reference: Reference, index: int):
        model = reference.model.eval()
        images = reference.images(index)
        self.body = model.backbone.bottom_up(images.tensor)
        self.pyramid = model.backbone(images.tensor)
        rpn = model.proposal_generator
        features = [self.pyramid[name] for name in rpn.in_features]
        self.logits, self.deltas = rpn.rpn_head(features)
        (self.proposals,), _ = rpn(images, self.pyramid)
        (self.detections,), _ = model.roi_heads(images, self.pyramid, [self.proposals])


class Training:
    """One step of our model on the recorded proposals, the body on its running statistics."""

    def __init__(self, reference: Reference):
        model = reference.model.train()
        # Only the flags: frozen norms must not be told apart here.
        for module in model.backbone.bottom_up.modules():
            module.training = False
        self.targets = [training_targets(reference, index) for index in PICTURES]
        height, width = reference["tr_shape"].tolist()
        tensor = torch.zeros(len(PICTURES), 3, height, width)
        for index in PICTURES:
            x = reference.network_input(index)[0]
            tensor[index, :, : x.shape[1], : x.shape[2]] = x
        images = ImageList(tensor, [target.image_size for target in self.targets])
        proposals = [
            Instances(
                target.image_size,
                proposal_boxes=Boxes(torch.from_numpy(reference[f"tr_props{index}"])),
            )
            for index, target in enumerate(self.targets)
        ]
        heads, rpn = model.roi_heads, model.proposal_generator
        self.rois: list[list[Instances]] = []
        self.predictions: list[tuple[torch.Tensor, torch.Tensor]] = []
        run_stage = heads._run_stage

        def recording_run_stage(features, rois, stage):
            self.rois.append(rois)
            predictions = run_stage(features, rois, stage)
            self.predictions.append(tuple(x.detach() for x in predictions))
            return predictions

        heads._run_stage = recording_run_stage
        try:
            with EventStorage():
                pyramid = model.backbone(images.tensor)
                features = [pyramid[name] for name in rpn.in_features]
                anchors = rpn.anchor_generator(features)
                self.anchors = torch.cat([boxes.tensor for boxes in anchors])
                self.anchor_labels, self.anchor_boxes = rpn.label_and_sample_anchors(
                    anchors, self.targets
                )
                _, self.losses = rpn(images, pyramid, self.targets)
                self.losses.update(heads(images, pyramid, proposals, self.targets)[1])
            sum(self.losses.values()).backward()
            self.losses = {name: loss.detach() for name, loss in self.losses.items()}
        finally:
            del heads._run_stage
        self.gradient_norms = {
            MMDETECTION_NAMES.to_theirs(name): parameter.grad.double().norm().item()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        restore(model, reference)


def restore(model: nn.Module, reference: Reference) -> None:
    """Undo what a training step did to running statistics."""
    model.zero_grad()
    load_weights(model, str(reference.checkpoint))
    model.eval()


def training_targets(reference: Reference, index: int) -> Instances:
    """The recorded objects of a picture."""
    target = Instances(reference.sizes(index)[2:4])
    target.gt_boxes = Boxes(torch.from_numpy(reference[f"tr_gt{index}_boxes"]))
    target.gt_classes = torch.from_numpy(reference[f"tr_gt{index}_labels"]).long()
    polygons: list[list[np.ndarray]] = [[] for _ in range(len(target))]
    parts = reference[f"tr_gt{index}_poly_parts"]
    ends = np.cumsum(parts[:, 1])[:-1]
    coordinates = np.split(reference[f"tr_gt{index}_poly"].astype(np.float64), ends)
    for (owner, _), part in zip(parts, coordinates, strict=True):
        polygons[owner].append(part)
    target.gt_masks = PolygonMasks(polygons)
    return target
