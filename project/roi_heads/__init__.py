"""The cascade's RoI heads: Detectron2's, with the original's choices as options."""
