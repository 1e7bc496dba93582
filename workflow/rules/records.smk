# Snakemake's records of what it made from what lie beside the results, so that both are copied or lost together.
RECORDS = Path("results/.records")


def keep_records():
    """Makes `.snakemake/metadata` a link to them, where it is not a folder of an earlier version."""
    link = Path(".snakemake/metadata")
    try:
        RECORDS.mkdir(parents=True, exist_ok=True)
        Path(".snakemake/incomplete").mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("..") / RECORDS)
    except OSError:
        pass  # it is there, or nothing can be written, which Snakemake itself tells


keep_records()
