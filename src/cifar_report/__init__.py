"""A study of neural networks on CIFAR-10, from the data to a report in which every number is traced to a run."""
