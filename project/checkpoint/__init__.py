"""Reading weights of several formats, and writing checkpoints that cannot be half-written."""
