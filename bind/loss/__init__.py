"""InfoNCE and SigLIP, exact over any number of ranks."""
