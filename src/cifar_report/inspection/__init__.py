"""Questions to a finished study."""
