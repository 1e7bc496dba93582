"""One run: the loop, its evaluation, its checkpoints and its place in the run store."""
