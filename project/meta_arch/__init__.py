"""The whole detector: Detectron2's, with masks that are pasted only where someone looks."""
