"""The mathematics of the report: an equation beside its function."""
