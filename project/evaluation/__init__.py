"""COCO metrics and submission files."""
