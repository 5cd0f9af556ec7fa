"""What can be refused before anything is written: training that can't begin, or that the memory can't hold."""

from collections.abc import Sequence

import jax

from vae_jax.config import Settings, epochs, hidden_sizes
from vae_jax.data.dataset import Dataset, check_batch_size
from vae_jax.domains import MOST_STEPS
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.networks import PATCH_SIDE
from vae_jax.training.streaming import are_streamed, memory_bytes

_BYTES = 4  # of a float32
_COPIES = 4  # parameters, gradient, Adam's two moments
_MOST_SHARE = 0.9


def check_trainable(settings: Settings, dataset: Dataset, together: int = 1) -> None:
    """Check that a model can be trained with these settings on this data.

    Args:
        settings: of the model.
        dataset: the images of the settings' classes are used.
        together: how many such models are trained in one program.

    Raises:
        UsageError: a setting outside its domain or that does not fit the others or the data; too few images for a
            batch; more steps than can be counted; more memory needed than there is.
    """
    model = build_model(settings, dataset.image_shape)
    for split in (dataset.validation, dataset.test):
        split.positions(settings.classes)
    train = dataset.train.of_classes(settings.classes)
    are_streamed(settings, train.images.nbytes)
    check_batch_size(train, settings.batch_size)
    number = epochs(settings, len(train))
    steps = number * -(-len(train) // settings.batch_size)
    if steps > MOST_STEPS:
        raise UsageError(
            f"--epochs {number} with --batch-size {settings.batch_size} is {steps} steps, at most {MOST_STEPS} can be "
            "counted. Give fewer epochs or a larger batch."
        )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    activations = settings.batch_size * _values_between_layers(settings, dataset.image_shape)
    copies = _COPIES + (settings.ema_decay > 0)
    at_once = 1 if model.chunk else together  # as `fit_many` trains convolutions on a CPU
    needed, there = _BYTES * (together * copies * parameters + 2 * at_once * activations), _memory()
    if needed > there:
        raise UsageError(
            f"--latent-dim {settings.latent_dim} with --hidden-sizes {_words(hidden_sizes(settings))} and --batch-size "
            f"{settings.batch_size} needs {needed / 2**30:,.1f} GiB of memory, but there are {there / 2**30:,.1f}.\n"
            "Give smaller layers, a smaller latent space or a smaller batch."
        )


def _values_between_layers(settings: Settings, image_shape: tuple[int, int, int]) -> int:
    # Of one image, in both networks: what backpropagation keeps, roughly.
    height, width, channels = image_shape
    total = height * width * channels + settings.latent_dim + 2 * settings.fourier_features
    for i, size in enumerate(hidden_sizes(settings)):
        side = {"mlp": 0, "conv": 2 ** (i + 1), "patch": PATCH_SIDE}[settings.arch]
        total += size * (-(-height // side) * -(-width // side) if side else 1)
    return 2 * total


def _memory() -> int:
    # Bytes of the accelerator, or of the machine where the processor computes.
    return int(_MOST_SHARE * memory_bytes(jax.local_devices()[0]))


def _words(sizes: Sequence[int]) -> str:
    return " ".join(map(str, sizes)) or "none"
