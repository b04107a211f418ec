"""The Triton kernels and every use of private torch operators; no other code lies here."""
