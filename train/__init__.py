"""Pairs of data -> a checkpoint."""
