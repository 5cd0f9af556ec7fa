"""Train a VAE (or an AE) on MNIST, evaluate it, draw it: `python -m experiments.mnist --latent-dim 2`.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. With the defaults, real MNIST and 2 CPU cores: about one
minute, test loss about 134 nats (reconstruction + KL, grey pixels under a Bernoulli; not a log-likelihood).
"""

from vae_jax.cli.command import main
from vae_jax.cli.train import Config, run

__all__ = ["Config", "run"]

if __name__ == "__main__":
    main(Config, run)
