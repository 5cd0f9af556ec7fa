"""What rows there are: data, networks, models; and what was published of them. Imports no JAX."""

from typing import Any, NamedTuple


class Data(NamedTuple):
    """Binary images."""

    dataset: str
    title: str
    binarize: str
    image_size: str | None = None


class Published(NamedTuple):
    """A test negative log-likelihood in nats that others report."""

    nll: float
    source: str
    mark: str
    """How it is known, as `MARKS` explains."""


DATA = {
    # Its values are 0 and 255 already: a threshold leaves them, and says that they are binary.
    "static": Data("binarized_mnist", "static MNIST", "threshold"),
    "dynamic": Data("mnist", "dynamic MNIST", "dynamic"),
    "fashion": Data("fashion_mnist", "Fashion-MNIST, dynamic", "dynamic"),
    "omniglot": Data("omniglot", "Omniglot, 28x28 from the original pictures and split, dynamic", "dynamic", "28"),
    "digits": Data("digits", "scikit-learn's digits, 8x8, dynamic", "dynamic"),
}
ARCHS: dict[str, tuple[str, dict[str, Any]]] = {
    "gated": ("gated", {"arch": "gated", "hidden_sizes": (300, 300), "latent_dim": 40}),
    "mlp": (
        "MLP of Burda et al.",
        {"arch": "mlp", "hidden_sizes": (200, 200), "activation": "tanh", "latent_dim": 50},
    ),
    "residual": ("residual", {"arch": "residual", "latent": "vector", "latent_dim": 40}),
}
"""What tables call a network, and its settings."""
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("VAE, N(0, I)", {}),
    "iwae-5": ("IWAE, 5 samples", {"objective": "iwae", "importance_samples": 5}),
    "iwae-50": ("IWAE, 50 samples", {"objective": "iwae", "importance_samples": 50}),
    "mixture": ("mixture prior of 500", {"prior": "mixture", "prior_components": 500}),
    "vamp": ("VampPrior of 500", {"prior": "vamp", "prior_components": 500}),
    "flow": ("flow prior", {"prior": "flow"}),
    "householder+flow": ("Householder posterior, flow prior", {"prior": "flow", "posterior": "householder"}),
}
"""What tables call a model, and what of its settings is not the VAE's."""
COMMON = {"ema_decay": 0.999, "gradient_clip": 20.0}
WARMUP = {"residual": 0.1}
"""Default of --kl-warmup where it is not 0: these networks else may lose all of their latents at once."""

_TW, _BURDA, _PYTHAE = "Tomczak & Welling 2018", "Burda et al. 2015, Table 1", "pythae, networks of its own"
_AUTHORS = "ResNet VAE, 1,000 samples"
PUBLISHED = {
    ("static", "gated", "vae"): (Published(88.56, _TW, "M"), Published(89.78, f"{_PYTHAE}, 200 samples", "V")),
    ("static", "gated", "vamp"): (Published(85.57, _TW, "V2"), Published(85.79, _PYTHAE, "V")),
    ("static", "mlp", "iwae-50"): (Published(86.82, _PYTHAE, "V"),),
    ("static", "residual", "vae"): (Published(82.95, _AUTHORS, "V2"),),
    ("static", "residual", "flow"): (Published(79.84, f"{_AUTHORS}, RealNVP", "V2"),),
    ("dynamic", "gated", "vae"): (Published(84.50, _TW, "M"), Published(84.45, "the same, quoted", "V2")),
    ("dynamic", "gated", "vamp"): (Published(82.38, _TW, "M"), Published(82.43, "the same, quoted", "V2")),
    ("dynamic", "mlp", "vae"): (Published(86.76, _BURDA, "V for the protocol"),),
    ("dynamic", "mlp", "iwae-5"): (Published(85.54, _BURDA, "V for the protocol"),),
    ("dynamic", "mlp", "iwae-50"): (Published(84.78, _BURDA, "V for the protocol"),),
    ("dynamic", "residual", "vae"): (Published(81.08, "ResNet VAE, latent dimension 32, 128 samples", "V2"),),
    ("dynamic", "residual", "flow"): (Published(78.49, f"{_AUTHORS}, RealNVP", "V2"),),
    ("fashion", "gated", "vae"): (Published(228.70, "protocol of Tomczak & Welling", "V2"),),
    ("fashion", "gated", "vamp"): (Published(227.35, "protocol of Tomczak & Welling", "V2"),),
}
"""By data, network and model; none for an Omniglot that is scaled and split as here."""
PROTOCOLS = {
    "gated": """\
Tomczak & Welling: learning rate 5e-4, batch 100, KL warm-up over 100 epochs, neither averaged weights nor clipped \
gradients, up to 2,000 epochs with early stopping after 50 without a better one.""",
    "mlp": """\
Burda et al.: batch 20, Adam's epsilon 1e-4, neither averaged weights nor clipped gradients, 3,280 epochs in eight \
stages, 3^i epochs at a learning rate of 1e-3 x 10^(-i/7) for i = 0 to 7, no early stopping.""",
    "residual": "ResNet VAEs: how they were trained is not known here.",
}
"""How the published models of a network were trained."""
MARKS = """\
V: read in the project's own files; V for the protocol: the protocol was read there, the number was not; V2: quoted \
by a third party; M: from memory."""


def is_data(text: str) -> bool:
    """Whether this is NAME or NAME=PATH of `DATA`."""
    name, equals, path = text.partition("=")
    return name in DATA and bool(equals) == bool(path)


def order_of(row: dict[str, Any]) -> tuple[int, int, int]:
    """Where a row stands among others."""
    tables: Any = zip((DATA, ARCHS, MODELS), (row[key] for key in ("data", "arch", "model")), strict=True)
    first, second, third = ([*table].index(name) for table, name in tables)
    return first, second, third
