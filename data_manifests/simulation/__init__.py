"""Simulated scenes: tables and renderer."""
