"""A config: read, named, checked, completed, made again, and told apart from others."""
