"""Teachers that are files: vectors of another system, or its lists."""
