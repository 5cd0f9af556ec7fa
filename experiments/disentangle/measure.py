"""What a run's latent dimensions say of the factors, in numbers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vae_jax.data.dataset import Dataset
from vae_jax.measures.disentanglement import dci, information
from vae_jax.models.codes import Codes
from vae_jax.runs.run import Run

TITLES = {
    "loss": "−ELBO, nats",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "active_units": "active units",
    "mig": "MIG",
    "mig_20": "MIG, 20 bins of the means",
    "disentanglement": "disentanglement",
    "completeness": "completeness",
    "informativeness": "informativeness",
}
"""Of the numbers, in the table."""
FITTED = 5000
"""Images whose codes the forests are fitted on, and most that they are tested on."""


class Measured(NamedTuple):
    """Of one run."""

    numbers: dict[str, float]
    gaps: list[float]
    """Of each factor, whose mean is the MIG."""
    shared: Float[np.ndarray, "latent factors"]
    """Mutual information by the entropy of the factor; the dimension of the largest KL first."""


def measure(run: Run, codes: Codes, dataset: Dataset) -> Measured:
    """The numbers of a run on test images, of which `codes` are the codes; DCI is fitted on training images."""
    train, test = dataset.train.rows(slice(FITTED)), dataset.test
    assert run.summary is not None
    assert train.factors is not None
    assert test.factors is not None
    known = information(codes.means, test.factors, codes.logvars)
    fitted = run.encode(train.images).means
    forests = dci(fitted, train.factors, codes.means[:FITTED], test.factors[:FITTED])._asdict()
    numbers = {name: float(run.summary["test"][name]) for name in ("loss", "reconstruction", "kl", "active_units")}
    numbers |= {"mig": known.mig(), "mig_20": information(codes.means, test.factors, bins=20).mig()}
    numbers |= {name: forests[name] for name in ("disentanglement", "completeness", "informativeness")}
    return Measured(numbers, known.gaps().tolist(), known.shared[codes.order()] / known.entropies)
