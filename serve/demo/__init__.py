"""The sample library of `crossbind demo`."""
