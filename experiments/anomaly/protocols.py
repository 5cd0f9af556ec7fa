"""The two protocols: what is normal, which score counts, and what others published."""

import dataclasses
from collections.abc import Sequence
from typing import Any

MODEL: dict[str, Any] = {"latent_dim": 16, "likelihood": "gaussian", "sigma": 0.2, "hidden_sizes": (256, 64)}
"""Settings of the VAE, chosen on MNIST's validation images."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is normal, and the score that counts, chosen on MNIST's validation images."""

    name: str
    title: str
    axis_name: str
    """What a class is in it."""
    run_name: str
    score: str
    published: tuple[tuple[str, str], ...]
    """Method and mean AUROC over MNIST's ten digits, with the mark of where it was read."""

    def normal(self, label: int, classes: Sequence[int]) -> tuple[int, ...]:
        """The classes to train on."""
        return (label,) if self.name == "one_class" else tuple(c for c in classes if c != label)


PROTOCOLS = {
    "one_class": Protocol(
        name="one_class",
        title="Protocol A: one class is normal, all others are anomalies",
        axis_name="normal class",
        run_name="class-{}",
        score="scaled_error",  # mean AUROC on MNIST's validation images 0.987; the next, relative error, 0.984
        published=(
            ("kernel density estimation", "0.869"),
            ("convolutional autoencoder (DCAE)", "0.897"),
            ("one-class SVM", "0.913 or 0.951, by paper"),
            ("AnoGAN", "0.913"),
            ("isolation forest", "0.923"),
            ("Deep SVDD", "0.948 [V2]"),
            ("VAE, of the OCGAN paper", "0.970"),
            ("LSA", "0.975"),
            ("OCGAN", "0.975"),
        ),
    ),
    "reverse": Protocol(
        name="reverse",
        title="Reverse protocol: one class is the anomaly, all others are normal",
        axis_name="anomalous class",
        run_name="without-{}",
        score="latent_knn",  # mean AUROC on MNIST's validation images 0.927; the next, scaled error, 0.860
        published=(("VAE, -ELBO, 2 latent dimensions", "0.855 [V]"), ("VAE, -ELBO, 32 latent dimensions", "0.718 [V]")),
    ),
}
