"""A run on disk: found in the store, resumed or trained, and moved into the study only when it is complete."""
