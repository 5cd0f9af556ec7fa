"""The way back from a run directory to the model, and what it does with images."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.config import Settings
from vae_jax.data.checks import as_labels
from vae_jax.data.dataset import Dataset
from vae_jax.data.raw import Pictures
from vae_jax.data.split import UNKNOWN
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Model, Parameters
from vae_jax.models.codes import Codes
from vae_jax.models.conditions import Labels, check_labels, numbered
from vae_jax.models.evaluation import (
    ImageLosses,
    class_probabilities,
    decode_latents,
    encode_images,
    image_losses,
    likeliest,
    mean_loss,
)
from vae_jax.models.fitted import check_parameters
from vae_jax.models.inputs import Inputs
from vae_jax.models.priors import Prior
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.datasets import find_dataset, pictures_of
from vae_jax.runs.described import described
from vae_jax.runs.draws import as_latents, checked_number, checked_temperature, drawn
from vae_jax.runs.records import read_dataset_record, read_metrics, read_summary
from vae_jax.training.history import Row
from vae_jax.training.step import Keys


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
            found = numbered(found, self.classes, str(self.path))
        return check_labels(found, number, self.model.classes, unknown=self.model.infers)

    def classify(self, images: Any) -> Float[np.ndarray, "n classes"]:
        """Probabilities of the classes, in the order of `classes`, of images by a run with --condition inferred."""
        seen = self.inputs._replace(corruption="none")
        return class_probabilities(self.model, self.params, images, self.evaluation_key, inputs=seen)

    def told(self, images: Any, labels: Any = None) -> Labels:
        """The labels of images as of `labels_of`; of a run that infers classes its own where one is not given."""
        known = self._of_images(labels, images)
        if not self.model.infers or (known is not None and not (known == UNKNOWN).any()):
            return known
        found = likeliest(self.classify(images), self.model.classes)
        return found if known is None else np.where(known == UNKNOWN, found, known)

    def taken_for(self, images: Any, labels: Any) -> Any:
        """The labels that commands see images with: these, but what a run that infers classes says of all of them.

        So codes of images that are new to it and of its training images are made in one way.
        """
        return self.told(images) if self.model.infers else labels

    def encode(self, images: Any, labels: Any = None) -> Codes:
        """Latents of images, binarised as in training, without noise on them; `labels` as of `labels_of`."""
        arguments = (self.model, self.params, images, self.evaluation_key)
        seen: Any = {"inputs": self.inputs._replace(corruption="none"), "labels": self._of_images(labels, images)}
        return Codes.of(*encode_images(*arguments, **seen), self.model.posterior.independent)

    def decode(self, codes: Any, labels: Any = None) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of latents [n, latent], of a conditional run with the `labels`, as of `labels_of`.

        Raises:
            UsageError: they are of another shape, or not finite; labels that are missing or have no effect.
        """
        latents = as_latents(codes, self.model.latent_dim)
        if labels is not None:
            self._check_conditional("labels")
        return decode_latents(self.model, self.params, latents, self.labels_of(labels, len(latents)))

    def reconstruct(self, images: Any, labels: Any = None) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of the latent means of images; `labels` as of `labels_of`."""
        known = self.told(images, labels)
        return self.decode(self.encode(images, known).means, known if self.model.classes else None)

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
        images, which `encode` gives, where posteriors have independent dimensions; `vae_jax.runs.refit` makes such. The
        run that comes back has no summary, whose numbers are those of its own prior. An autoencoder has a prior only in
        this way, and still pays nothing for it.

        Args:
            prior: of as many dimensions as the latents.
            params: its parameters.

        Raises:
            UsageError: the parameters are others than `prior.init` makes.
        """
        check_parameters(prior, params, self.model.latent_dim)
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
        """Expected images of new latents: of the prior, or for an AE without one, of a Gaussian fitted to codes.

        Args:
            number: of images.
            label: of a conditional run, as of `labels_of`: the class of all, or that of each. By default all classes
                in turn. The latents depend on it only where the prior does.
            seed: of the draws.
            key: of the draws, in place of the seed.
            temperature: multiplies how far the latents spread: below 1 they are more alike and more typical.
            codes: to fit the Gaussian to; by default those of the run's own validation images.
        """
        options = self._draws(number, label, seed, key, temperature)
        if not self.model.prior.has_density:
            options["codes"] = (codes or self._validation_codes()).means
        return np.asarray(drawn(self.model, "generate", int(number), self.params, **options))

    def draw(self, number: Any, **options: Any) -> Float[np.ndarray, "number latent"]:
        """Latents drawn from the prior, those that `generate` decodes; arguments as there.

        Raises:
            UsageError: there is no prior.
        """
        if not self.model.prior.has_density:
            raise UsageError(f"{self.path} has no prior to draw from.\nFit one: vae-jax fit-prior {self.path}")
        return np.asarray(drawn(self.model, "draw", int(number), self.params, **self._draws(number, **options)))

    def _draws(
        self, number: Any, label: Any = None, seed: int = 0, key: Any = None, temperature: Any = 1.0
    ) -> dict[str, Any]:
        # What the model is told of so many draws, checked.
        number = checked_number(number, self.model.image_shape)
        if label is not None:
            self._check_conditional("label")
        key = jax.random.key(seed) if key is None else key
        options: dict[str, Any] = {"key": key, "temperature": checked_temperature(temperature)}
        if self.model.classes:
            in_turn = np.resize(self.model.classes, number) if label is None else label
            # Of a class that is known: -1 would be none at all.
            options["labels"] = check_labels(self.labels_of(in_turn, number), number, self.model.classes)
        return options

    def _validation_codes(self) -> Codes:
        part = load_dataset_of(self).validation
        return self.encode(part.images, part.labels)

    def _of_images(self, labels: Any, images: Any) -> Any:
        return self.labels_of(labels, len(images) if hasattr(images, "__len__") else 1)

    def _check_conditional(self, name: str) -> None:
        if not self.model.classes:
            raise UsageError(f"{name} has no effect: {self.path} was trained without --condition.\nLeave it out.")


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
    model, settings = described(directory, model, inputs)
    dataset, metrics, summary = read_dataset_record(directory), read_metrics(directory), read_summary(directory)
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
    return filled(run, find_dataset(run.config, run.dataset, data_dir).of_classes(run.config.classes))


def filled(run: Run, dataset: Dataset) -> Dataset:
    """The data set with the class that a run infers of each image whose class is not known."""
    if not run.model.infers:
        return dataset
    splits: Any = {
        name: dataclasses.replace(split, labels=run.told(split.images, split.labels))
        for name, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, **splits)
