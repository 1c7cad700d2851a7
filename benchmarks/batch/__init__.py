"""The batch engine beside its peers, measured in one run on one pinned core; see `python -m benchmarks.batch --help`."""
