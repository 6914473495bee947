"""Layers that torch, torchvision and Detectron2 have too, but slower."""
