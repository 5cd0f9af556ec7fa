"""What a setting can name: a table for each noun, to which a program adds its own in one line. Imports no JAX.

An entry makes its object from the settings. Those of the library are imported when they are first asked for, so that
--help and the checks of flags do not wait for JAX.
"""

import importlib
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vae_jax.errors import UsageError


class Entry(NamedTuple):
    """One thing that can be named."""

    make: Callable[..., Any] | str
    """Makes the object; or where that function lives, "module:name" within vae_jax."""
    uses: tuple[str, ...] = ()
    """Settings that act on it, of those that only some entries have a use for."""
    default_hidden_sizes: tuple[int, ...] = ()
    """Of an architecture."""
    infers: bool = False
    """Whether an objective of the library teaches the classifier of a model that infers classes; one's own says it
    itself."""


class Registry:
    """The entries that one setting can name."""

    def __init__(self, field: str, **entries: Entry):
        """Begin with the library's own entries."""
        self.field, self._entries = field, dict(entries)

    def register(self, name: str, make: Callable[..., Any], *, uses: tuple[str, ...] = (), **more: Any) -> None:
        """Add an entry of one's own, or replace it.

        Args:
            name: as the setting and the flag will have it.
            make: what makes the object; its arguments are those of the noun, see the module that defines it.
            uses: settings that act on it, such as ("sigma",).
            more: `default_hidden_sizes` of an architecture.
        """
        self._entries[name] = Entry(make, tuple(uses), **more)

    def unregister(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]

    def own(self, name: str) -> bool:
        """Whether it is an entry of one's own, not of the library."""
        return not isinstance(self[name].make, str)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise UsageError(
                f"--{self.field.replace('_', '-')} must be one of {', '.join(self)}, got {name!r}.\n"
                f"Register one of your own by that name before it is used."
            )
        return self._entries[name]

    def make(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """The object of that name.

        Raises:
            UsageError: there is none.
        """
        make = self[name].make
        if isinstance(make, str):
            module, _, attribute = make.partition(":")
            make = operator.attrgetter(attribute)(importlib.import_module(f"vae_jax.{module}"))
        return make(*arguments, **keywords)


ARCHITECTURES = Registry(
    "arch",
    mlp=Entry("models.networks:mlp", ("fourier_features",), (512, 256, 128)),
    gated=Entry("models.networks:gated", ("fourier_features",), (300, 300)),
    conv=Entry("models.networks:conv", ("fourier_features", "dense_size"), (32, 64)),
    patch=Entry("models.networks:patch", (), (64, 64)),
    residual=Entry("models.residual:residual", ("latent",), (128, 128)),
)
LIKELIHOODS = Registry(
    "likelihood",
    bernoulli=Entry("models.likelihoods:Bernoulli.from_settings"),
    continuous_bernoulli=Entry("models.likelihoods:ContinuousBernoulli.from_settings"),
    gaussian=Entry("models.likelihoods:Gaussian.from_settings", ("sigma",)),
    learned_gaussian=Entry("models.likelihoods:LearnedGaussian.from_settings"),
    squared_error=Entry("models.likelihoods:SquaredError.from_settings"),
    discretized_logistic=Entry("models.discretized:DiscretizedLogistic.from_settings", ("channel_conditioning",)),
    logistic_mixture=Entry(
        "models.discretized:DiscretizedLogistic.mixture", ("mixture_components", "channel_conditioning")
    ),
    discretized_gaussian=Entry("models.discretized:DiscretizedGaussian.from_settings"),
    beta_binomial=Entry("models.beta_binomial:BetaBinomial.from_settings"),
)
PRIORS = Registry(
    "prior",
    standard=Entry("models.priors:StandardNormal.from_settings"),
    mixture=Entry("models.mixtures:Mixture.from_settings", ("prior_components",)),
    vamp=Entry("models.mixtures:Vamp.from_settings", ("prior_components",)),
    flow=Entry("models.flows:Flow.from_settings", ("prior_layers",)),
    **{"class": Entry("models.mixtures:OfClass.from_settings")},
)
POSTERIORS = Registry(
    "posterior",
    diagonal=Entry("models.posteriors:Diagonal.from_settings"),
    householder=Entry("models.posteriors:Householder.from_settings", ("reflections",)),
)
OBJECTIVES = Registry(
    "objective",
    elbo=Entry("models.objectives:ELBO.from_settings", ("beta", "kl_warmup_steps", "free_bits")),
    iwae=Entry("models.importance:IWAE.from_settings", ("importance_samples", "importance_groups", "elbo_share")),
    dreg=Entry("models.importance:DReG.from_settings", ("importance_samples", "importance_groups")),
    m2=Entry(
        "models.semi_supervised:M2.from_settings",
        ("beta", "kl_warmup_steps", "classification_weight", "head_start_steps"),
        infers=True,
    ),
    tc=Entry("models.correlation:TotalCorrelation.from_settings", ("tc_weight",)),
    sparse=Entry("models.objectives:Sparse.from_settings", ("sparsity_weight",)),
)
SAMPLINGS = Registry(
    "sampling",
    uniform=Entry("training.sampling:Sampling.from_settings"),
    balanced=Entry("training.sampling:Balanced.from_settings"),
    labelled=Entry("training.sampling:Labelled.from_settings", ("labelled_share",)),
    rare=Entry("training.sampling:Rare.from_settings"),
)
OPTIMIZERS = Registry("optimizer", adam=Entry("training.optimizer:adam"))
