"""The multilayer perceptron of the report, back-propagated by hand in NumPy."""
