"""How the default model is made and measured. This package may import the trainer, never the reverse."""
