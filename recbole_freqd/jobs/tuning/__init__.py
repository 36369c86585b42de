"""Searching keys on validation data."""
