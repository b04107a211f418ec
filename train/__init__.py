"""Training: paired data -> a checkpoint."""
