"""Vectors for a serving system."""
