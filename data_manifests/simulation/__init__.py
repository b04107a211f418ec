"""Simulated scenes: tables and a renderer."""
