"""A timm feature extractor behind Detectron2's ``Backbone`` interface."""

import logging

import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from project.errors import UserError, reason_of
from project.layers.depthwise import use_fast_depthwise
from project.layers.split_attention import use_fast_split_attention

logger = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)
FEATURE_NAMES = ("res2", "res3", "res4", "res5")
NORMS = ("BN", "SyncBN", "FrozenBN")


class TimmBody(Backbone):
    """The features C2..C5 of a timm model.

    The modules keep timm's names under ``body``, so that timm's weights load by name.

    Args:
        name: a timm model that offers features at strides 4, 8, 16 and 32.
        norm: "BN" (batch statistics of each process), "SyncBN" (of all processes) or "FrozenBN"
            (running statistics and affine parameters stay as loaded).
        freeze_at: as in Detectron2's ResNet: 0 trains everything, 1 freezes the stem (what comes
            before the stage that ends in C2), 2 also that stage; each further number one stage
            more, up to 5. The BatchNorm layers of frozen parts use their running statistics.

    Raises:
        UserError: timm has no such model, it lacks one of the four strides, or its stages cannot
            be told apart while ``freeze_at`` asks for it.
    """

    def __init__(self, name: str, norm: str = "BN", freeze_at: int = 0):
        super().__init__()
        if norm not in NORMS:
            raise UserError(f"MODEL.TIMM.NORM is {norm!r}; choose one of {', '.join(NORMS)}")
        if not 0 <= freeze_at <= len(STRIDES) + 1:
            raise UserError(f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; choose 0 to 5")
        self.body = _create_features(name)
        use_fast_split_attention(self.body)
        use_fast_depthwise(self.body)
        if norm == "SyncBN":
            self.body = convert_sync_batchnorm(self.body)
        info = self.body.feature_info
        self._channels_last_output = _gives_channels_last(self.body)

        frozen = _modules_to_freeze(name, self.body, info.module_name(), freeze_at)
        for module in frozen:
            module.requires_grad_(False)
        norm_scope = [self.body] if norm == "FrozenBN" else frozen
        self._frozen_norms = [
            m for part in norm_scope for m in part.modules() if isinstance(m, _BatchNorm)
        ]
        for module in self._frozen_norms:
            module.requires_grad_(False)

        self._out_features = list(FEATURE_NAMES)
        self._out_feature_strides = dict(zip(FEATURE_NAMES, STRIDES, strict=True))
        self._out_feature_channels = dict(zip(FEATURE_NAMES, info.channels(), strict=True))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            images: normalised pictures. Shape (N, 3, H, W); where H or W is no multiple of 32,
                zeros are added to the right and below, so that the levels of an FPN fit.

        Returns:
            "res2" to "res5". Shapes (N, C, H' / stride, W' / stride) with H', W' the padded size.
        """
        height, width = images.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            images = F.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        features = self.body(images)
        if self._channels_last_output:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return dict(zip(FEATURE_NAMES, features, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in FEATURE_NAMES
        }

    def train(self, mode: bool = True) -> "TimmBody":
        """As ``nn.Module.train``, but frozen BatchNorm layers stay on their running statistics."""
        super().train(mode)
        for module in self._frozen_norms:
            module.eval()
        return self


def _create_features(name: str) -> nn.Module:
    """Make the timm model that returns just the four features."""
    try:
        with torch.device("meta"):  # costs no memory: only to see which features there are
            reductions = timm.create_model(name, features_only=True).feature_info.reduction()
    except (RuntimeError, ValueError, AttributeError) as error:
        similar = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:4]
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        raise UserError(
            f"MODEL.TIMM.NAME {name!r} gives no features: {reason_of(error)}{hint}"
        ) from error
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        raise UserError(
            f"MODEL.TIMM.NAME {name!r} has features at strides {reductions}; an FPN needs 4, 8, 16"
            " and 32: choose a hierarchical model"
        )
    # Where a stride is offered twice, the deepest feature is the one a detector uses.
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)
    options = {"features_only": True, "out_indices": indices}
    try:
        # Swin, and what is like it, would take pictures of one size only.
        body = timm.create_model(name, **options, strict_img_size=False)
    except TypeError:  # other families have no such option
        body = timm.create_model(name, **options)
    _require_promised_shapes(name, body)
    return body


@torch.no_grad()
def _require_promised_shapes(
    name: str, body: nn.Module, height: int = 96, width: int = 160
) -> None:
    """Look at a picture with ``body``: some of timm's have other strides than they say.

    Raises:
        UserError: it cannot, or a feature has another shape.
    """
    try:
        features = body.eval()(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"MODEL.TIMM.NAME {name!r} cannot look at pictures of any size"
            f" ({reason_of(error)}); choose a convolutional model"
        ) from error
    body.train()
    channels = body.feature_info.channels()
    expected = [(c, height // s, width // s) for c, s in zip(channels, STRIDES, strict=True)]
    found = [tuple(feature.shape[1:]) for feature in features]
    if _gives_channels_last(body):
        found = [(c, h, w) for h, w, c in found]
    if found != expected:
        raise UserError(
            f"MODEL.TIMM.NAME {name!r} makes features of shapes {found} of {height} x {width}"
            f" pixels; an FPN needs {expected}: choose another model"
        )


def _gives_channels_last(body: nn.Module) -> bool:
    return str(getattr(body, "output_fmt", "")).endswith("NHWC")


def _modules_to_freeze(
    name: str, body: nn.Module, stage_names: list[str], freeze_at: int
) -> list[nn.Module]:
    """The modules of ``body`` that ``freeze_at`` freezes.

    timm registers modules in the order in which they run, so the stem is what stands before the
    module that ends in C2, whatever the family calls it.
    """
    if freeze_at == 0:
        return []
    modules = dict(body.named_modules())
    # `features_only` flattens "stages.0" to "stages_0" in some families.
    stages = [stage if stage in modules else stage.replace(".", "_", 1) for stage in stage_names]
    if not all(stage in modules for stage in stages):
        raise UserError(
            f"MODEL.TIMM.NAME {name!r} does not name its stages as modules, so they cannot be"
            " frozen by number; set MODEL.BACKBONE.FREEZE_AT 0"
        )
    end = stages[max(freeze_at - 2, 0)]
    selected = []
    for module_name, module in modules.items():
        if module_name == end:
            return selected if freeze_at == 1 else [*selected, module]
        holds_end = module_name == "" or end.startswith(f"{module_name}.")
        if not holds_end:
            selected.append(module)
    return selected
