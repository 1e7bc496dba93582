"""A study of neural networks on CIFAR-10, from the data to a report in which every number is traced to a run."""


def __getattr__(name: str):
    """`load_study`, imported when it is asked for: `import cifar_report` alone costs no job anything."""
    if name != "load_study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cifar_report.inspection.frames import load_study

    return load_study
