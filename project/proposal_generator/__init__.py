"""The RPN: Detectron2's, with the original's rules as options."""
