"""Retrieval and classification tables of a model."""
