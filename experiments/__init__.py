"""One study = one file, run as `python -m experiments.NAME`."""
