"""The making and measuring of the default model. This package may import the trainer, never the reverse."""
