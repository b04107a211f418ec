"""Manifests -> batches: datasets, augmentation, the feature cache."""
