"""The networks: each function names the equation of the report that it computes. A change here retrains runs."""
