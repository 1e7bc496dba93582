"""From a source of images to verified arrays."""
