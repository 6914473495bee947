"""Checks of COCO-format data sets: every problem with its place, and what can be done about it."""
