"""Data for training: manifests -> batches, augmentation, and the cache of features."""
