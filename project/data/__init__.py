"""Datasets in COCO format: registration, checks, and generated pictures."""
