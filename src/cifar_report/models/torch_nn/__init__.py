"""The networks of the report in PyTorch."""
