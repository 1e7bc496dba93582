"""A run on disk: found, resumed or trained, and published whole."""
