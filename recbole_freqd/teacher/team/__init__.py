"""Several teachers as one: members, their weights, scores and features."""
