"""AE against VAE, fairly: `python -m experiments.compare --latent-dim 2`.

The same networks, data order, batches and epochs; several seeds of each model trained together in one compiled program;
means and 95% intervals over the seeds. What the KL term buys is measured: reconstruction, 5-NN accuracy, continuity
and completeness of the latent space, and the quality of samples, also from a mixture fitted to the codes afterwards
(Ghosh et al. 2020), without which an autoencoder's samples would be a straw man.
"""

import dataclasses
from pathlib import Path

from experiments.flags import NetworkConfig, run
from vae_jax.domains import MOST_SAMPLES, MOST_SHOWN, MOST_UNITS, at_least, epoch_number, positive

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Train AEs and VAEs of several seeds, measure both, draw them side by side."""

    latent_dim: int = at_least(1, 2, most=MOST_UNITS)
    """Dimensions of both latent spaces."""
    seeds: int = at_least(1, 5, most=MOST_SHOWN)
    """Models of each kind."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 15, and 20 for fewer than 10,000 images."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    ae_learning_rate: float = positive(3e-3)
    """Peak learning rate of the AE; of 1e-3, 2e-3 and 3e-3 this is the best on MNIST's validation split."""
    vae_learning_rate: float = positive(3e-3)
    """Peak learning rate of the VAE; of 1e-3, 2e-3 and 3e-3 this is the best on MNIST's validation split."""
    ae: tuple[Path, ...] = ()
    """Finished runs of AEs to measure in place of training some."""
    vae: tuple[Path, ...] = ()
    """Finished runs of VAEs to measure in place of training some."""
    samples: int = at_least(10, 2000, most=MOST_SAMPLES)
    """Images to generate for precision, recall and Fréchet distance."""
