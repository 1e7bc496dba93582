"""From settings, a seed and arrays to a trained network; reads and writes no files. A change here retrains runs."""
