"""The way back from a run directory to the model, and what it does with images."""

import dataclasses
import math
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.config import Settings
from vae_jax.data.checks import as_labels
from vae_jax.data.dataset import Dataset
from vae_jax.data.raw import Pictures
from vae_jax.domains import as_declared, shortened
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Model, Parameters, build_model
from vae_jax.models.codes import Codes
from vae_jax.models.conditions import Labels, check_labels
from vae_jax.models.evaluation import ImageLosses, decode_latents, encode_images, image_losses, mean_loss
from vae_jax.models.inputs import Inputs
from vae_jax.models.priors import Prior
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.datasets import find_dataset, pictures_of
from vae_jax.runs.records import (
    NAMED,
    check_described,
    read_config,
    read_dataset_record,
    read_metrics,
    read_settings,
    read_summary,
)
from vae_jax.training.history import Row
from vae_jax.training.recipe import description
from vae_jax.training.step import Keys
from vae_jax.training.streaming import memory_bytes

_OF_TRAINING: dict[str, Any] = {
    f.name: f.default for f in dataclasses.fields(Settings) if f.metadata["group"] == "training"
}
"""What a model that is trained does not depend on, such as an optimiser whose name may not be registered here."""
_BYTES = 16  # of a pixel while it is generated: a few copies in float32


class Run(NamedTuple):
    """A run read back from its directory. Its methods take images of any kind that `load_dataset` does."""

    path: Path
    model: Any
    params: Parameters
    config: Settings
    metrics: list[Row]
    dataset: dict[str, Any]
    """Name, source, sha256, image_shape and number of images of the data set it was trained on."""
    summary: dict[str, Any] | None
    """None while the run is not finished."""
    step: int
    """The step of the restored checkpoint."""
    given_inputs: Inputs | None = None
    """What the model sees of an image, where the settings do not say."""

    @property
    def evaluation_key(self) -> Key[Array, ""]:
        """The key of the run's own evaluations, so that they can be repeated."""
        return Keys.from_seed(self.config.seed).evaluation

    @property
    def pictures(self) -> Pictures | None:
        """How pictures became the images that it was trained on; None where it does not say."""
        return pictures_of(self.dataset)

    @property
    def inputs(self) -> Inputs:
        """What the model sees of an image."""
        return self.given_inputs or Inputs.from_settings(self.config)

    @property
    def classes(self) -> dict[str, int]:
        """The classes that a conditional run knows: their labels by name, or by the label as a text; else none."""
        names = self.dataset.get("class_names") or ()
        named = ((names[label] if 0 <= label < len(names) else str(label), label) for label in self.model.classes)
        return dict(named)

    def labels_of(self, given: Any, number: int) -> Labels:
        """The labels of so many images: as numbers, from numbers or names, of each or one for all; or None for none.

        Raises:
            UsageError: they are no labels or of another number, or a conditional run does not know one.
        """
        if given is None:
            return None
        found: Any = as_labels([given] * number if np.ndim(given) == 0 else given, number)
        if not self.model.classes:
            return found
        if found.dtype.kind == "U":
            names, places = np.unique(found, return_inverse=True)
            if strange := sorted(set(names.tolist()) - set(self.classes)):
                raise UsageError(
                    f"{self.path} knows no class {strange[0][:60]!r}.\n"
                    f"Give the label as one that it knows: {shortened(', '.join(self.classes), 200)}."
                )
            found = np.array([self.classes[name] for name in names.tolist()], np.int32)[places]
        return check_labels(found, number, self.model.classes)

    def encode(self, images: Any, labels: Any = None) -> Codes:
        """Latents of images, binarised as in training, without noise on them; `labels` as of `labels_of`."""
        arguments = (self.model, self.params, images, self.evaluation_key)
        seen = {"inputs": self.inputs._replace(corruption="none"), "labels": self._of_images(labels, images)}
        return Codes.of(*encode_images(*arguments, **seen))

    def decode(self, codes: Any, labels: Any = None) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of latents [n, latent], of a conditional run with the `labels`, as of `labels_of`.

        Raises:
            UsageError: they are of another shape, or not finite; labels that are missing or have no effect.
        """
        try:
            latents = np.asarray(codes, np.float32)
            good = latents.ndim == 2 and latents.shape[1] == self.model.latent_dim and np.isfinite(latents).all()
        except (TypeError, ValueError):
            good = False
        if not good:
            found = f" of shape {codes.shape}" if hasattr(codes, "shape") else ""
            raise UsageError(
                f"codes must be finite numbers [n, {self.model.latent_dim}], got {str(codes)[:60]!r}{found}."
            )
        if labels is not None:
            self._check_conditional("labels")
        return decode_latents(self.model, self.params, latents, self.labels_of(labels, len(latents)))

    def reconstruct(self, images: Any, labels: Any = None) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of the latent means of images; `labels` as of `labels_of`."""
        return self.decode(self.encode(images, labels).means, labels if self.model.classes else None)

    def losses(self, images: Any, labels: Any = None, *, samples: int = 16) -> ImageLosses:
        """Losses of each image, seen as in training; `samples` latent samples each, `labels` as of `labels_of`."""
        arguments = (self.model, self.params, images, self.evaluation_key)
        known = self._of_images(labels, images)
        return image_losses(*arguments, samples=samples, inputs=self.inputs, labels=known)

    def evaluate(self, images: Any, labels: Any = None, *, samples: int = 16) -> dict[str, float]:
        """Mean loss and its parts, as of `mean_loss`; arguments as of `losses`."""
        return mean_loss(self.model, self.losses(images, labels, samples=samples))

    def with_prior(self, prior: Prior, params: Parameters) -> "Run":
        """The same networks under another prior, as one fitted after training: `evaluate` and `generate` use it.

        Such as `prior = FullGaussian()` with `params = prior.fit(codes.means, codes.logvars)` of the codes of training
        images, which `encode` gives. The run that comes back has no summary, whose numbers are those of its own prior.

        Args:
            prior: of as many dimensions as the latents.
            params: its parameters.

        Raises:
            UsageError: the model has no prior, or the parameters are others than `prior.init` makes.
        """
        if not self.model.stochastic:
            raise UsageError(
                f"An {self.model.name} has no prior that another could take the place of.\n"
                "Its samples are those of a Gaussian fitted to codes: give them by generate(number, codes=...)."
            )
        wanted = jax.eval_shape(partial(prior.init, latent_dim=self.model.latent_dim), jax.random.key(0))
        shapes, found = (jax.tree.map(jnp.shape, each) for each in (wanted, params))
        if shapes != found:
            raise UsageError(f"The parameters of {type(prior).__name__} must have the shapes {shapes}, got {found}.")
        model = dataclasses.replace(self.model, prior=prior)
        others = {name: value for name, value in self.params.items() if name != "prior"}
        params = others | ({"prior": params} if params else {})
        return self._replace(model=model, params=params, summary=None)

    def generate(
        self,
        number: Any,
        *,
        label: Any = None,
        seed: int = 0,
        key: Key[Array, ""] | None = None,
        temperature: Any = 1.0,
        codes: Codes | None = None,
    ) -> Float[np.ndarray, "number height width channels"]:
        """Expected images of new latents: of the prior, or for an AE, which has none, of a Gaussian fitted to codes.

        Args:
            number: of images.
            label: of a conditional run, as of `labels_of`: the class of all, or that of each. By default all classes
                in turn. The latents do not depend on it.
            seed: of the draws.
            key: of the draws, in place of the seed.
            temperature: multiplies how far the latents spread: below 1 they are more alike and more typical.
            codes: to fit the Gaussian to; by default those of the run's own validation images.
        """
        number = as_declared(number, int)
        most = memory_bytes(jax.local_devices()[0]) // (_BYTES * math.prod(self.model.image_shape))
        if type(number) is not int or not 1 <= number <= most:
            raise UsageError(
                f"number must be an integer of at least 1 and, for the memory, at most {most}, got {number!r}."
            )
        temperature = as_declared(temperature, float)
        if not (isinstance(temperature, int | float) and 0 <= temperature < math.inf):
            raise UsageError(f"temperature must be a finite number of at least 0, got {temperature!r}.")
        given: dict[str, Any] = {}
        if not self.model.stochastic:
            given["codes"] = (codes or self._validation_codes()).means
        if label is not None:
            self._check_conditional("label")
        if self.model.classes:
            in_turn = np.resize(self.model.classes, number) if label is None else label
            given["labels"] = self.labels_of(in_turn, number)
        drawn = jax.random.key(seed) if key is None else key
        return np.asarray(_generate(self.model, number, self.params, drawn, jnp.float32(temperature), **given))

    def _validation_codes(self) -> Codes:
        part = load_dataset_of(self).validation
        return self.encode(part.images, part.labels)

    def _of_images(self, labels: Any, images: Any) -> Any:
        return self.labels_of(labels, len(images) if hasattr(images, "__len__") else 1)

    def _check_conditional(self, name: str) -> None:
        if not self.model.classes:
            raise UsageError(
                f"{name} has no effect: {self.path} was trained without --condition labels.\nLeave it out."
            )


@partial(jax.jit, static_argnums=(0, 1))
def _generate(model: Any, number: int, params: Parameters, key: Array, temperature: Array, **more: Array) -> Array:
    return model.generate(params, key, number, temperature, **more)


def load_run(
    path: str | os.PathLike[str],
    checkpoint: str = "best",
    *,
    model: Model | None = None,
    inputs: Inputs | None = None,
) -> Run:
    """Read a run back: the model, its parameters and what was recorded, on whatever device is there.

    Where the checkpoint is damaged, the other one that is kept is used, with a warning.

    Args:
        path: the run directory.
        checkpoint: "best" on validation, or "latest".
        model: the model that was trained, where its settings do not describe it.
        inputs: those that it was trained with, where the settings do not describe them.

    Raises:
        UsageError: no run directory, a damaged one, one without a checkpoint, one of a model that has to be given, or
            another model or other inputs than it was trained with.
    """
    if checkpoint not in ("best", "latest"):
        raise UsageError(f"checkpoint must be 'best' or 'latest', got {checkpoint!r}.")
    directory = Path(path).expanduser()
    of_model = () if model else tuple(name for name in NAMED if name not in _OF_TRAINING)
    settings, dataset = read_settings(directory, Settings, registered=of_model), read_dataset_record(directory)
    metrics, summary = read_metrics(directory), read_summary(directory)
    given = {"model": model, "inputs": inputs}
    for name in given:
        if given[name] is None and name in read_config(directory)["own"]:
            raise UsageError(
                f"{directory} was trained with {name} of its own, which its settings do not describe.\n"
                f"Make the same again, and give it: load_run(path, {name}=...)."
            )
    check_described(directory, {name: description(part) for name, part in given.items() if part is not None})
    if model is None:
        model = build_model(
            dataclasses.replace(settings, **_OF_TRAINING), dataset["image_shape"], dataset.get("labels")
        )
    with Checkpoints(directory) as checkpoints:
        step = checkpoints.best_step if checkpoint == "best" else checkpoints.latest_step
        params, step = checkpoints.restore_params(step, jax.eval_shape(model.init, jax.random.key(0)))
    return Run(directory, model, params, settings, metrics, dataset, summary, step, inputs)


def load_dataset_of(run: Run, data_dir: Path | None = None) -> Dataset:
    """The data set that a run was trained on, checked to be the same, with the images of its classes only.

    Args:
        run: from `load_run`.
        data_dir: the data, or the folder that holds it, if it no longer lies where the run found it.

    Raises:
        UsageError: the data can't be found, or is other data.
    """
    return find_dataset(run.config, run.dataset, data_dir).of_classes(run.config.classes)
