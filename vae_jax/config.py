"""The settings of a run, one field a fact: its default, its domain, when it acts. Imports no JAX."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from vae_jax.domains import (
    MOST_COMPONENTS,
    MOST_SAMPLES,
    MOST_SHOWN,
    MOST_UNITS,
    Needs,
    are_different,
    as_declared,
    at_least,
    choice,
    epoch_number,
    flag_of,
    fraction,
    hints_of,
    image_sides,
    layer_sizes,
    named,
    non_negative,
    positive,
    probability,
    seed_field,
    setting,
)
from vae_jax.registry import (
    ARCHITECTURES,
    LIKELIHOODS,
    OBJECTIVES,
    OPTIMIZERS,
    POSTERIORS,
    PRIORS,
    SAMPLINGS,
    Registry,
)

_VAE: Needs = ("--model vae", lambda settings: settings.model == "vae")
_AE: Needs = ("--model ae", lambda settings: settings.model == "ae")
_INFERRED: Needs = ("--condition inferred", lambda settings: settings.condition == "inferred")
_WEIGHTED: Needs = ("a --beta above 0", lambda settings: settings.beta > 0)
_TARGETED: Needs = (
    "--sparsity topk, or kl with a --sparsity-weight above 0",
    lambda settings: settings.sparsity == "topk" or (settings.sparsity == "kl" and settings.sparsity_weight > 0),
)


def _used(registry: Registry, field: str, *more: Needs) -> Needs:
    # By the entry of the registry that the settings name.
    def used(settings: Any) -> bool:
        named = {OBJECTIVES.field: objective_name, SAMPLINGS.field: sampling_name}.get(registry.field)
        entry = named(settings) if named else getattr(settings, registry.field)
        if entry is None:  # what the images will decide
            return True
        return field in registry[entry].uses and all(test(settings) for _, test in more)

    users = " or ".join(name for name in registry if field in registry[name].uses)
    return " and ".join([*(words for words, _ in more), f"{flag_of(registry.field)} {users}"]), used


def _is_class(label: int | str) -> bool:
    return label != "" if isinstance(label, str) else -(2**31) <= label < 2**31


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a trained model, one field a flag; the docstring of a field is its help."""

    model: Literal["vae", "ae"] = choice("vae", group="model", common=True)
    """Variational autoencoder, or the classic one with the same networks."""
    arch: str = named("mlp", ARCHITECTURES, group="model", common=True)
    """Fully connected, with activations or with gates; convolutional with stride 2; for a denoising AE, a code at each
    patch of 4x4 pixels; or for photographs, residual blocks of which each sees the pixels of a place as channels."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes(group="model", common=True)
    """Widths of the encoder's hidden layers, channels or blocks; the decoder mirrors them. Default: 512 256 128 for
    mlp, 300 300 for gated, 32 64 for conv, 64 64 for patch, 128 128 for residual."""
    dense_size: int = at_least(
        0, 16, " (0: none)", most=MOST_UNITS, group="model", needs=_used(ARCHITECTURES, "dense_size")
    )
    """Units of the conv encoder's dense layer before the latent one."""
    fourier_features: int = at_least(
        0, 0, " (0: none)", most=MOST_UNITS, group="model", needs=_used(ARCHITECTURES, "fourier_features")
    )
    """Sines, and as many cosines, of the latent that the decoder sees beside it; their frequencies are trained. The
    decoder can then change faster over a plane, and few dimensions tell more images apart."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = choice(
        "gelu",
        group="model",
        needs=(
            "hidden layers that are not gated",
            lambda settings: settings.arch != "gated" and (settings.arch != "mlp" or settings.hidden_sizes != ()),
        ),
    )
    """Nonlinearity between the layers."""
    precision: Literal["float32", "bfloat16"] = choice("float32", group="devices")
    """Numbers that the networks compute with; bfloat16 is for GPUs and TPUs. Parameters, their updates, the
    latents and the losses are float32 either way."""
    latent_dim: int = at_least(1, 2, most=MOST_UNITS, group="model", common=True)
    """Dimensions of the latent space."""
    latent: Literal["map", "vector"] = choice("map", group="model", needs=_used(ARCHITECTURES, "latent"))
    """A latent of residual networks with as many dimensions for each place of a map, in order of rows, columns and
    channels, for much detail; or a vector of which each dimension acts on the whole image."""
    likelihood: str = named("bernoulli", LIKELIHOODS, group="model", common=True)
    """Distribution of a pixel given the latent; squared_error is the AE's ||x - d(e(x))||^2."""
    sigma: float = positive(0.1, least=1e-4, group="model", needs=_used(LIKELIHOODS, "sigma"))
    """Standard deviation of the gaussian likelihood, where pixels lie in [0, 1]."""
    mixture_components: int = at_least(
        1, 3, most=MOST_COMPONENTS, group="model", needs=_used(LIKELIHOODS, "mixture_components")
    )
    """Logistic distributions that logistic_mixture gives each value of an image."""
    channel_conditioning: bool = choice(True, group="model", needs=_used(LIKELIHOODS, "channel_conditioning"))
    """Whether those of green depend on red, and those of blue on both; images of other than 3 channels have none."""
    prior: str = named("standard", PRIORS, group="model", needs=_VAE)
    """Distribution of the latent before an image is seen: N(0, I); or, trained with the rest, a mixture of Gaussians,
    the mean posterior of learned images (VampPrior), a normalising flow, or a Gaussian for each class."""
    prior_components: int = at_least(1, 100, most=10_000, group="model", needs=_used(PRIORS, "prior_components", _VAE))
    """Gaussians of the mixture, or images of vamp, each of which the encoder sees at each step."""
    prior_layers: int = at_least(1, 6, most=32, group="model", needs=_used(PRIORS, "prior_layers", _VAE))
    """Affine couplings of the flow."""
    posterior: str = named("diagonal", POSTERIORS, group="model", needs=_VAE)
    """Distribution of the latent once an image is seen: a Gaussian of independent dimensions, or one that reflections
    turn for each image, so that they are correlated."""
    reflections: int = at_least(1, 4, most=MOST_COMPONENTS, group="model", needs=_used(POSTERIORS, "reflections", _VAE))
    """Reflections of the householder posterior, each by a vector that the encoder gives."""
    condition: Literal["none", "labels", "inferred"] = choice("none", group="model")
    """What encoder and decoder are told beside the image: nothing; its class, so that images can be made of any; or
    where its label is -1, what a classifier infers that is trained with them (M2: few labels are enough)."""
    labels: int | None = at_least(1, None, group="data", needs=_INFERRED)
    """Training images whose labels are used, as many of each class, chosen by the seed. Default: all."""
    objective: str | None = named(None, OBJECTIVES, group="training")
    """What training minimises: the negative evidence lower bound; an importance-weighted bound, which is nearer to the
    likelihood, plainly (iwae) or with a less noisy gradient for the encoder (dreg); or, for latent dimensions that are
    independent of each other, that with a weight on their total correlation (tc, the beta-TCVAE). Default: elbo, sparse
    with --sparsity l1 or kl, and m2 with --condition inferred."""
    importance_samples: int = at_least(
        1, 5, most=MOST_SAMPLES, group="training", needs=_used(OBJECTIVES, "importance_samples")
    )
    """Latents an image in a bound of iwae and dreg; each is decoded, so that a step takes about as many times as
    long."""
    importance_groups: int = at_least(
        1, 1, most=MOST_SAMPLES, group="training", needs=_used(OBJECTIVES, "importance_groups")
    )
    """Bounds an image, of so many samples each, whose mean is the objective."""
    classification_weight: float = non_negative(1.0, group="training", needs=_used(OBJECTIVES, "classification_weight"))
    """Weight of the classifier's loss -log q(y | x) of an image whose class is known, beside the bound of m2."""
    head_start_steps: int = at_least(
        0, 1000, " (0: off)", group="training", needs=_used(OBJECTIVES, "head_start_steps")
    )
    """Steps in which the classifier of m2 learns from images whose class is known alone."""
    tc_weight: float = non_negative(6.0, group="training", needs=_used(OBJECTIVES, "tc_weight"))
    """Weight of the total correlation in tc's objective, which is a part of the KL term; 1 is the evidence lower
    bound. Batches of hundreds of images estimate it well."""
    elbo_share: float = fraction(0.0, group="training", needs=_used(OBJECTIVES, "elbo_share"))
    """Weight of the evidence lower bound in iwae's objective, beside the importance-weighted one."""
    sampling: str | None = named(None, SAMPLINGS, group="training")
    """Which images an epoch is made of: each once (uniform); each class as often as any other (balanced); so that a
    --labelled-share of them has labels (labelled); those with rare latents more often, which are found anew each epoch
    (rare). Default: uniform, and labelled with --condition inferred."""
    labelled_share: float = probability(0.5, group="training", needs=_used(SAMPLINGS, "labelled_share"))
    """Share of an epoch's images whose class is known, where fewer are."""
    binarize: Literal["none", "threshold", "dynamic"] = choice("none", group="data", common=True)
    """Pixels as they are in [0, 1], thresholded at one half, or drawn anew as Bernoulli(pixel)."""
    code_activation: Literal["linear", "relu", "sigmoid"] = choice("linear", group="model", needs=_AE)
    """What an AE's code passes through."""
    sparsity: Literal["none", "l1", "kl", "topk"] = choice("none", group="model", needs=_AE)
    """What keeps an AE's code sparse: the sum of |code|; the KL divergence between the wanted and the mean
    activation of each unit, for --code-activation sigmoid; or only the largest units kept."""
    sparsity_weight: float = non_negative(0.1, group="training", needs=_used(OBJECTIVES, "sparsity_weight"))
    """Weight of the penalty of --sparsity l1 or kl."""
    sparsity_target: float = probability(0.05, group="model", needs=_TARGETED)
    """Wanted mean activation of a unit (kl), or share of the units that are kept (topk)."""
    augment: tuple[Literal["flip", "crop"], ...] = setting(
        (), "of flip and crop, each at most once", lambda v: not v or are_different(v), group="data"
    )
    """Training images changed anew at each step: left and right exchanged, half of the time; shifted by up to an eighth
    of each side, with the edge repeated. Letters and digits mean something else when they are flipped."""
    corruption: Literal["none", "gaussian", "gaussian_clipped", "salt_and_pepper", "masking"] = choice(
        "none", group="data", needs=("a --corruption-level above 0", lambda settings: settings.corruption_level > 0)
    )
    """Noise on the encoder's input, while the loss compares with the clean image: a denoising autoencoder."""
    corruption_level: float = non_negative(
        0.25, group="data", needs=("a --corruption", lambda settings: settings.corruption != "none")
    )
    """Standard deviation of the Gaussian noise, or share of the pixels that are replaced."""
    classes: tuple[int | str, ...] | None = setting(
        None,
        "different labels, each an integer of 32 bits, or names of classes",
        lambda v: v is None or (are_different(v, len(v)) and all(map(_is_class, v))),
        group="data",
    )
    """Train and validate on the images of these classes only, given by label or by name. Default: all."""
    beta: float = non_negative(1.0, group="training", common=True, needs=_used(OBJECTIVES, "beta", _VAE))
    """Weight of the KL term; 1 is the evidence lower bound."""
    kl_warmup_steps: int = at_least(
        0, 0, " (0: off)", group="training", needs=_used(OBJECTIVES, "kl_warmup_steps", _VAE, _WEIGHTED)
    )
    """Steps over which the weight of the KL term rises linearly from 0 to beta."""
    free_bits: float = non_negative(
        0.0, " (0: off)", group="training", needs=_used(OBJECTIVES, "free_bits", _VAE, _WEIGHTED)
    )
    """Nats of KL that each latent dimension may use free of charge, on average over the batch."""
    dataset: str | None = choice(None, group="data", common=True)
    """Name of a data set, or path of a file or a folder of images. Default: mnist, and digits where it can't be had."""
    data_dir: Path | None = choice(None, group="data")
    """Where the data lies. Default: the environment variable VAE_JAX_DATA_DIR."""
    background: Literal["white", "black"] = choice("white", group="data")
    """What shows through where a picture is transparent."""
    image_size: str | None = setting(
        None,
        "a text N or HxW (height x width), each from 1 to 99999, such as 64 or 48x64",
        lambda v: v is None or image_sides(v) is not None,
        group="data",
    )
    """Size in pixels of the images that pictures become, N or HxW. Default: that which all have, and 64 where they
    differ."""
    fit: Literal["crop", "pad"] = choice("crop", group="data")
    """How a picture of another shape gets that size: scaled so that its short side fits and cropped from the middle, or
    scaled so that its long side fits and padded by --background."""
    skip_damaged: bool = dataclasses.field(default=False, metadata={"group": "data"})
    """Leave out the files of a folder that can't be read, in place of refusing the folder."""
    device_data: Literal["auto", "always", "never"] = choice("auto", group="devices")
    """Whether the training images live on the device or are streamed to it from the host, with the same result; auto
    streams where they exceed a quarter of the device's memory (on a CPU, of the host's)."""
    epochs: int | None = epoch_number(group="training", common=True)
    """Passes over the training images. Default: 36, and 100 for fewer than 10,000 images. More of them on --resume
    stretch the rate's cosine from there on."""
    steps: int | None = at_least(1, None, group="training")
    """Steps of the whole run, in place of --epochs; the last epoch may then end early."""
    batch_size: int = at_least(1, 256, group="training", common=True)
    """Images a step."""
    optimizer: str = named("adam", OPTIMIZERS, group="training")
    """How a gradient becomes a step."""
    learning_rate: float = positive(3e-3, most=1e30, group="training", common=True)
    """Peak of the learning rate, which falls to 1% of it along a cosine."""
    warmup_fraction: float = fraction(0.05, group="training")
    """Share of all steps in which the learning rate rises to its peak."""
    gradient_clip: float = non_negative(10.0, " (0: off)", most=1e30, group="training")
    """Largest global norm of the gradient."""
    ema_decay: float = fraction(0.0, " (0: off)", group="training")
    """Decay of a moving average of the parameters, evaluated and saved in their place."""
    patience: int = at_least(0, 0, " (0: off)", group="training")
    """Stop after so many epochs without a lower validation loss; never before warm-up ends."""
    checkpoint_every_steps: int = at_least(0, 0, " (0: off)", group="run")
    """Save within an epoch, too, each time the number of steps is a multiple of this. Its end is always saved."""
    parallel: Literal["auto", "jit", "pmap"] = choice("auto", group="devices")
    """How a step uses the devices: jit on one, or spread over all by jit or pmap; auto is jit. The parameters are
    the same but for rounding. On a CPU that is divided into several devices auto takes one."""
    seed: int = seed_field(group="training", common=True)
    """Seed of the one root key: initial parameters, order of the images, noise."""
    test_samples: int = at_least(1, 16, most=MOST_SAMPLES, group="run", needs=_VAE)
    """Latent samples an image for the test loss."""
    iwae_samples: int = at_least(0, 0, " (0: off)", most=MOST_SAMPLES, group="run", needs=_VAE)
    """Importance samples an image for the test log-likelihood; papers use 5000."""
    grid_size: int | None = at_least(2, None, most=MOST_SHOWN, group="run")
    """Images a side of the decoded latent grid. Default: 20, and fewer of large images, so that it is drawn in
    seconds."""

    def __post_init__(self) -> None:
        for name, hint in hints_of(self).items():
            value = getattr(self, name)
            declared = as_declared(value, hint)
            if declared is not value:
                object.__setattr__(self, name, declared)


MANY_IMAGES = 10_000
"""Training images from which on fewer epochs are enough."""
READING = ("background", "image_size", "fit", "skip_damaged")
"""The settings that say how `load_dataset` reads, by its own names for them."""


def objective_name(settings: Settings) -> str:
    """The objective: that given, or the one that the other settings ask for."""
    asked_for = {settings.sparsity in ("l1", "kl"): "sparse", settings.condition == "inferred": "m2"}
    return settings.objective or asked_for.get(True, "elbo")


def sampling_name(settings: Settings) -> str:
    """Which images an epoch is made of: that given, or what the other settings ask for."""
    return settings.sampling or ("labelled" if settings.condition == "inferred" else "uniform")


def few_images_batch(images: int) -> int:
    """The batch size for fewer images than a batch would have: 32, or all there are."""
    return min(32, images)


def hidden_sizes(settings: Settings) -> tuple[int, ...]:
    """The encoder's hidden sizes: those given, or the architecture's own."""
    own = ARCHITECTURES[settings.arch].default_hidden_sizes
    return own if settings.hidden_sizes is None else settings.hidden_sizes


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps that see every image once; the last batch may be short."""
    return -(-images // batch_size)


def epochs(settings: Settings, images: int) -> int:
    """The number of epochs over so many training images: that given, or the default; the last one may end early."""
    if settings.steps is not None:
        return -(-settings.steps // steps_per_epoch(images, settings.batch_size))
    return settings.epochs or (36 if images >= MANY_IMAGES else 100)


def total_steps(settings: Settings, images: int) -> int:
    """Steps of a whole run over so many training images."""
    return settings.steps or epochs(settings, images) * steps_per_epoch(images, settings.batch_size)
