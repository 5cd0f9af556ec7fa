"""What can be refused before anything is written: training that can't begin, or that the memory can't hold."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.config import Settings, epochs, hidden_sizes, objective_name, sampling_name
from vae_jax.data.dataset import Dataset, check_batch_size
from vae_jax.domains import MOST_STEPS
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Parameters, build_model
from vae_jax.models.conditions import conditions_of
from vae_jax.registry import OBJECTIVES, SAMPLINGS
from vae_jax.training.fit import training_part
from vae_jax.training.streaming import are_streamed, memory_bytes

_BYTES = 4  # of a float32
_COPIES = 4  # parameters, gradient, Adam's two moments
_MOST_SHARE = 0.9


def check_trainable(settings: Settings, dataset: Dataset, together: int = 1) -> None:
    """Check that a model, or so many of them together, can be trained with these settings on this data.

    Raises:
        UsageError: a setting outside its domain or that does not fit the others or the data; too few images for a
            batch; more steps than can be counted; more memory needed than there is.
    """
    model = build_model(settings, dataset.image_shape, conditions_of(settings, dataset))
    for split in (dataset.validation, dataset.test):
        split.positions(settings.classes)
    train = training_part(dataset.train, settings)
    SAMPLINGS.make(sampling_name(settings), settings).check(train)
    are_streamed(settings, train.images.nbytes)
    check_batch_size(train, settings.batch_size)
    number = epochs(settings, len(train))
    steps = number * -(-len(train) // settings.batch_size)
    if steps > MOST_STEPS:
        raise UsageError(
            f"--epochs {number} with --batch-size {settings.batch_size} is {steps} steps, at most {MOST_STEPS} can be "
            "counted. Give fewer epochs or a larger batch."
        )
    params = jax.eval_shape(model.init, jax.random.key(0))
    images, codes = jnp.zeros((1, *model.seen_shape)), jnp.zeros((1, model.decoded_dim))
    objective = OBJECTIVES.make(objective_name(settings), settings)
    latents = objective.latents
    decoded = model.tried * latents * _outputs(model.decoder, params["decoder"], codes)
    encoded = model.tried * settings.batch_size + model.prior.images  # those that a prior lets the encoder see
    activations = encoded * _outputs(model.encoder, params["encoder"], images) + settings.batch_size * decoded
    if objective.pairs:
        activations += settings.batch_size**2 * settings.latent_dim
    copies, parameters = _COPIES + (settings.ema_decay > 0), _size(params)
    at_once = 1 if model.chunk else together  # as `fit_many` trains convolutions on a CPU
    needed, there = _BYTES * (together * copies * parameters + 2 * at_once * activations), _memory()
    if needed > there:
        sizes = " ".join(map(str, hidden_sizes(settings))) or "none"
        raise UsageError(
            f"--latent-dim {settings.latent_dim} with --hidden-sizes {sizes} and --batch-size {settings.batch_size}"
            f"{f', {latents} latents an image,' * (latents > 1)} needs {needed / 2**30:,.1f} GiB of memory, but there "
            f"are {there / 2**30:,.1f}.\nGive smaller layers, a smaller latent space or a smaller batch"
            f"{', or fewer --importance-samples or --importance-groups' * (latents > 1)}."
        )


def _outputs(network: nn.Module, params: Parameters, x: Any) -> int:
    # Values that all layers of a network give for one example: what backpropagation keeps, roughly.
    def run(params: Parameters, x: Any) -> Any:
        return network.apply({"params": params}, x, capture_intermediates=True, mutable=["intermediates"])[1]

    return _size(jax.eval_shape(run, params, x))


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _memory() -> int:
    # Bytes of the accelerator, or of the machine where the processor computes.
    return int(_MOST_SHARE * memory_bytes(jax.local_devices()[0]))
