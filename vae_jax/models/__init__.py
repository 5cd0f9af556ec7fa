"""What is learned: distributions, objectives, networks, the two models and their evaluation."""
