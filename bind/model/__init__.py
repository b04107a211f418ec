"""Towers of one space, and the stream of sources through them."""
