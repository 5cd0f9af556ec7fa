"""The settings of a run and their domains, without importing JAX: the one place for names and defaults."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_type_hints

from vae_jax.domains import (
    MOST_UNITS,
    are_different,
    at_least,
    epoch_number,
    fraction,
    has_type,
    in_words,
    layer_sizes,
    non_negative,
    positive,
    probability,
    seed_field,
    setting,
    shortened,
)
from vae_jax.errors import UsageError

DEFAULT_HIDDEN_SIZES: dict[str, tuple[int, ...]] = {"mlp": (512, 256, 128), "conv": (32, 64), "patch": (64, 64)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a trained model, one field a flag; the docstring of a field is its help."""

    model: Literal["vae", "ae"] = "vae"
    """Variational autoencoder, or the classic autoencoder with the same networks."""
    arch: Literal["mlp", "conv", "patch"] = "mlp"
    """Fully connected; convolutional with stride 2; or, for a denoising AE, a code at each patch of 4x4 pixels."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes()
    """Widths of the encoder's hidden layers (channels for conv and patch), mirrored by the
    decoder. Default: 512 256 128 for mlp, 32 64 for conv, 64 64 for patch."""
    dense_size: int = at_least(0, 16, " (0: none)", most=MOST_UNITS)
    """Units of the conv encoder's dense layer before the latent one."""
    fourier_features: int = at_least(0, 0, " (0: none)", most=MOST_UNITS)
    """Sines, and as many cosines, of the latent that the decoder sees beside it, their frequencies trained: it can
    then change faster over a plane, and a latent of few dimensions tells more images apart. Not for patch."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Nonlinearity between the layers."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers that the networks compute with; bfloat16 is for GPUs and TPUs. Parameters, their updates, the
    latents and the losses are float32 either way."""
    latent_dim: int = at_least(1, 2, most=MOST_UNITS)
    """Dimensions of the latent space."""
    likelihood: Literal["bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian", "squared_error"] = (
        "bernoulli"
    )
    """Distribution of a pixel given the latent; squared_error is the AE's ||x - d(e(x))||^2."""
    sigma: float = positive(0.1, least=1e-4)
    """Standard deviation of the gaussian likelihood, where pixels lie in [0, 1]."""
    binarize: Literal["none", "threshold", "dynamic"] = "none"
    """Pixels as they are in [0, 1], thresholded at one half, or drawn anew as Bernoulli(pixel)."""
    code_activation: Literal["linear", "relu", "sigmoid"] = "linear"
    """What an AE's code passes through."""
    sparsity: Literal["none", "l1", "kl", "topk"] = "none"
    """What keeps an AE's code sparse: the sum of |code|; the KL divergence between the wanted and the mean
    activation of each unit, for --code-activation sigmoid; or only the largest units kept."""
    sparsity_weight: float = non_negative(0.1)
    """Weight of the penalty of --sparsity l1 or kl."""
    sparsity_target: float = probability(0.05)
    """Wanted mean activation of a unit (kl), or share of the units that are kept (topk)."""
    corruption: Literal["none", "gaussian", "gaussian_clipped", "salt_and_pepper", "masking"] = "none"
    """Noise on the encoder's input, while the loss compares with the clean image: a denoising autoencoder."""
    corruption_level: float = non_negative(0.25)
    """Standard deviation of the Gaussian noise, or share of the pixels that are replaced."""
    classes: tuple[int, ...] | None = setting(
        None,
        "different labels, each an integer of 32 bits",
        lambda v: v is None or (are_different(v, len(v)) and all(-(2**31) <= label < 2**31 for label in v)),
    )
    """Train and validate on the images of these labels only. Default: all."""
    beta: float = non_negative(1.0)
    """Weight of the KL term; 1 is the evidence lower bound."""
    kl_warmup_steps: int = at_least(0, 0, " (0: off)")
    """Steps over which the weight of the KL term rises linearly from 0 to beta."""
    free_bits: float = non_negative(0.0, " (0: off)")
    """Nats of KL that each latent dimension may use free of charge, on average over the batch."""
    dataset: str | None = None
    """mnist, fashion_mnist, kmnist, digits, another prepared TFDS data set, or the path of an .npz
    or .npy file or a folder of images. Default: mnist, and digits where mnist can't be had."""
    data_dir: Path | None = None
    """Where the data lies. Default: the environment variable VAE_JAX_DATA_DIR."""
    device_data: Literal["auto", "always", "never"] = "auto"
    """Whether the training images live on the device or are streamed to it from the host, with the same result; auto
    streams where they exceed a quarter of the device's memory (on a CPU, of the host's)."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 36, and 100 for fewer than 10,000 images. More of them on
    --resume stretch the cosine of the learning rate from there on."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(3e-3, most=1e30)
    """Peak of Adam's learning rate, which falls to 1% of it along a cosine."""
    warmup_fraction: float = fraction(0.05)
    """Share of all steps in which the learning rate rises to its peak."""
    gradient_clip: float = non_negative(10.0, " (0: off)", most=1e30)
    """Largest global norm of the gradient."""
    ema_decay: float = fraction(0.0, " (0: off)")
    """Decay of a moving average of the parameters, evaluated and saved in their place."""
    patience: int = at_least(0, 0, " (0: off)")
    """Stop after so many epochs without a lower validation loss; never before warm-up ends."""
    checkpoint_every_steps: int = at_least(0, 0, " (0: off)")
    """Save within an epoch, too, each time the number of steps is a multiple of this. Its end is always saved."""
    parallel: Literal["auto", "jit", "pmap"] = "auto"
    """How a step uses the devices: jit on one, or spread over all by jit or pmap; auto is jit. The parameters are
    the same but for rounding. On a CPU that is divided into several devices auto takes one."""
    seed: int = seed_field()
    """Seed of the one root key: initial parameters, order of the images, noise."""


def check_settings(settings: Any) -> None:
    """Check every field of a settings dataclass against its type and its domain.

    Raises:
        UsageError: naming the flag, the value and what is allowed, for the first bad field.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        hint = hints[field.name]
        allowed = field.metadata.get("allowed") or in_words(hint)
        if not has_type(value, hint) or not field.metadata.get("valid", lambda _: True)(value):
            flag = "--" + field.name.replace("_", "-")
            raise UsageError(f"{flag} must be {allowed}, got {shortened(repr(value), 120)}.")
    if not isinstance(settings, Settings):
        return
    if settings.arch != "mlp" and settings.hidden_sizes == ():
        raise UsageError(f"--hidden-sizes must name at least one layer for --arch {settings.arch}, got none.")
    if settings.arch == "patch" and settings.model != "ae":
        raise UsageError("--arch patch needs --model ae, got --model vae: its code is no bottleneck.")
    if settings.arch == "patch" and settings.fourier_features:
        raise UsageError(
            f"--fourier-features needs --arch mlp or conv, got {settings.fourier_features} and --arch patch, "
            "whose code is no bottleneck."
        )
    if settings.likelihood == "squared_error" and settings.model != "ae":
        raise UsageError(
            "--likelihood squared_error needs --model ae, got --model vae.\n"
            "Use --likelihood gaussian --sigma 0.70710678: the same loss up to a constant, and a bound."
        )
    if settings.model == "vae":
        for flag, value, neutral in (
            ("--sparsity", settings.sparsity, "none"),
            ("--code-activation", settings.code_activation, "linear"),
        ):
            if value != neutral:
                raise UsageError(f"{flag} {value} needs --model ae, got --model vae, whose latent is a Gaussian.")
    if settings.sparsity == "kl" and settings.code_activation != "sigmoid":
        raise UsageError(
            f"--sparsity kl needs a code in (0, 1), got --code-activation {settings.code_activation}.\n"
            "Add --code-activation sigmoid, or use --sparsity l1 or topk."
        )
    if settings.corruption in ("salt_and_pepper", "masking") and settings.corruption_level > 1:
        raise UsageError(
            f"--corruption-level must be a share of at most 1 for --corruption {settings.corruption}, "
            f"got {settings.corruption_level}."
        )


def hidden_sizes(settings: Settings) -> tuple[int, ...]:
    """The encoder's hidden sizes: those given, or the architecture's own."""
    return DEFAULT_HIDDEN_SIZES[settings.arch] if settings.hidden_sizes is None else settings.hidden_sizes


def epochs(settings: Settings, images: int) -> int:
    """The number of epochs: that given, or the default for so many training images."""
    return settings.epochs or (36 if images >= 10_000 else 100)
