"""Signal processing: mel filterbanks and resampling."""
