"""Chooses on validation data, before any training: a panel, weights, a filter."""
