"""Models: the towers of one space, and the pipeline that decodes and encodes media."""
