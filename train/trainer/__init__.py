"""The trainer: the schema of run files, towers, and the training loop."""
