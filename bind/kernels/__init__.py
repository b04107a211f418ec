"""Triton kernels and private torch operators, and nothing else."""
