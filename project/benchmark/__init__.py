"""This project against stock Detectron2, side by side in one process, on the same inputs."""
