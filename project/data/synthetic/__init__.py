"""Generated pictures in the tiny-VOC layout, for the demo and the tests.

They are no substitute for photographs. Everything is drawn from ``numpy.random.RandomState``, whose
streams numpy has frozen, with integer and IEEE-exact operations only: the same JSON and the same
pixels before JPEG on every machine.
"""

from project.data.synthetic.dataset import generate_dataset
from project.data.synthetic.scene import Scene, render_scene
from project.data.synthetic.shapes import CLASS_NAMES

__all__ = ["CLASS_NAMES", "Scene", "generate_dataset", "render_scene"]
