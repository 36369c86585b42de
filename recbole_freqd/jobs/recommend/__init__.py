"""Top lists of all users, or of some, or of new ones, as a file."""
