"""What a teacher chooses by validation data: a panel, weights, a filter."""
