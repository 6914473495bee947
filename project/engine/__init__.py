"""Training, evaluation and export of a model: what ``train_net.py`` runs."""

import project.registration  # noqa: F401  (says how to get Detectron2 where it is missing)
from project.engine.trainer import Trainer

__all__ = ["Trainer"]
