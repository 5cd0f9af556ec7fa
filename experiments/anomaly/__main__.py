"""`python -m experiments.anomaly`."""

from experiments.anomaly import Config, run
from vae_jax.cli.command import main
from vae_jax.cli.score import Calibrate, Score, calibrate, score

main(Config, run, commands={"calibrate": (Calibrate, calibrate), "score": (Score, score)})
