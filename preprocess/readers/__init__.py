"""One file a kind of medium: a source -> segments of raw views, and raw views -> tensors."""
