"""Bodies from timm as Detectron2 backbones with an FPN."""
