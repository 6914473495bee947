"""Parameters, FLOP and activations of a detector's parts, counted by fvcore."""

import logging
from dataclasses import dataclass

import torch
from detectron2.export import TracingAdapter
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from torch import nn

# Part -> the modules that it is made of, less those of parts before it.
_PARTS = {
    "body": ("backbone.bottom_up",),
    "FPN": ("backbone",),
    "RPN": ("proposal_generator",),
    "box heads": ("roi_heads.box_head", "roi_heads.box_predictor"),
    "mask heads": ("roi_heads.mask_head",),
    "rest": ("",),
}


@dataclass(frozen=True)
class PartCost:
    """What a part of a model costs.

    Attributes:
        parameters: number of weights.
        flop: multiplications with an addition, of one picture.
        activations: numbers that convolutions and linear layers put out, of one picture.
    """

    parameters: int
    flop: int
    activations: int


@dataclass(frozen=True)
class ModelCost:
    """What a model costs at inference.

    Attributes:
        parts: "body", "FPN", "RPN", "box heads", "mask heads" and "rest".
        proposals: that the box heads looked at.
        detections: that the mask heads looked at.
    """

    parts: dict[str, PartCost]
    proposals: int
    detections: int

    @property
    def total(self) -> PartCost:
        """All parts together."""
        columns = ([getattr(p, x) for p in self.parts.values()] for x in PartCost.__annotations__)
        return PartCost(*map(sum, columns))


@torch.no_grad()
def count_cost(model: nn.Module, image_hw: tuple[int, int]) -> ModelCost:
    """The cost of one picture of noise.

    Box and mask heads cost as much as there are proposals and detections: with random weights
    nearly as many as the config allows.

    Args:
        model: a ``GeneralizedRCNN``, on any device.
        image_hw: height and width of the model's input.
    """
    model.eval()
    counts: dict[str, int] = {}
    hooks = [
        model.proposal_generator.register_forward_hook(
            lambda _, __, output: counts.update(proposals=len(output[0][0]))
        ),
        model.roi_heads.register_forward_hook(
            lambda _, __, output: counts.update(detections=len(output[0][0]))
        ),
    ]
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *image_hw), generator=generator, dtype=torch.uint8)
    traced = TracingAdapter(
        model, [{"image": image}], lambda m, x: m.inference(x, do_postprocess=False), True
    )
    analyses = [
        analysis(traced, traced.flattened_inputs)
        for analysis in (FlopCountAnalysis, ActivationCountAnalysis)
    ]
    logger = logging.getLogger("fvcore")  # of operations and modules that have no count
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for analysis in analyses:
            # Like other operations element by element, which fvcore does not count.
            analysis.set_op_handle("aten::batch_norm", None)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_module = [
            {name.removeprefix("model").lstrip("."): count for name, count in x.by_module().items()}
            for x in analyses
        ]
    finally:
        logger.setLevel(level)
        for hook in hooks:
            hook.remove()
    parameters = {
        name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()
    }
    return ModelCost(_by_part(parameters, *by_module), **counts)


def _by_part(*counts: dict[str, int]) -> dict[str, PartCost]:
    """For each part, each of ``counts`` (module -> number)."""
    parts = {}
    for part, modules in _PARTS.items():
        totals = [sum(int(count.get(name, 0)) for name in modules) for count in counts]
        inside = [
            cost
            for other, cost in parts.items()
            if any(name.startswith(modules[0]) for name in _PARTS[other])
        ]
        values = [
            total - sum(getattr(cost, attribute) for cost in inside)
            for total, attribute in zip(totals, PartCost.__annotations__, strict=True)
        ]
        parts[part] = PartCost(*values)
    return parts
