"""The studies: each a file or a folder, run as `python -m experiments.NAME`; what one alone uses lies with it."""
