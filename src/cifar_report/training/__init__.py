"""From settings, a seed and arrays to a trained network; no files."""
