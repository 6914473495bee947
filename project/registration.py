"""Put the project's parts into Detectron2's registries, once, when first needed.

Everything that uses the registries (``add_project_config``, ``project.engine``) imports this
module; nothing else does registration.
"""

from project.dependencies import require_detectron2

require_detectron2()

import project.backbone.fpn  # noqa: E402  (BACKBONE_REGISTRY)
import project.checkpoint.path_handlers  # noqa: E402  (PathManager: timm://, package://)
import project.meta_arch.rcnn  # noqa: E402  (META_ARCH_REGISTRY)
import project.proposal_generator.rpn  # noqa: E402  (PROPOSAL_GENERATOR_REGISTRY)
import project.roi_heads.cascade  # noqa: E402, F401  (ROI_HEADS_REGISTRY)
