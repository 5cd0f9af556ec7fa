"""What lasts: run directories, their records and checkpoints."""
