"""What makes a run a finished one: its numbers on the test split, and summary.json."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.config import objective_name
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.data.stored import Images, pieces
from vae_jax.models.autoencoders import AnyModel
from vae_jax.models.codes import Codes
from vae_jax.models.conditions import Labels
from vae_jax.models.evaluation import ImageLosses, error_rate, importance_weighted_nll, mean_loss
from vae_jax.models.inputs import Inputs
from vae_jax.models.quality import bits_per_dim, has_bits_per_dim, psnr
from vae_jax.models.shapes import count_parameters
from vae_jax.registry import OBJECTIVES
from vae_jax.runs.environment import device_name
from vae_jax.runs.records import write_json
from vae_jax.runs.run import Run, load_run


def finish_run(
    path: Path,
    dataset: Dataset,
    *,
    model: AnyModel | None = None,
    inputs: Inputs | None = None,
    before: Callable[[Run, Codes, dict[str, Any]], dict[str, Any]] | None = None,
) -> Run:
    """Measure a trained run on the test split of its classes, and write summary.json, which says that it is finished.

    Args:
        path: the run directory.
        dataset: what it was trained on.
        model: of a run whose settings do not describe it.
        inputs: of a run whose settings do not describe them.
        before: called with the run, the codes of the test images and their numbers before summary.json is written;
            what it gives back is written with the rest.
    """
    run = load_run(path, model=model, inputs=inputs)
    part, rows = dataset.test.of_classes(run.config.classes), run.metrics
    told = run.taken_for(part.images, part.labels)
    codes = run.encode(part.images, told)
    test = measure_test(run, part, codes, told)
    diagnosis = _diagnosis(run, codes)
    summary = {
        "test": test,
        **({"diagnosis": diagnosis} if diagnosis else {}),
        "epochs": len(rows),
        "steps": rows[-1]["step"],
        "best_step": run.step,
        "training_seconds": sum(row["seconds"] for row in rows),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "parameters": count_parameters(run.params),
        "dataset": dataset.name,
        "device": device_name(),
    }
    write_json(path / "summary.json", summary | (before(run, codes, test) if before else {}))
    return load_run(path, model=model, inputs=inputs)


def _diagnosis(run: Run, codes: Codes) -> str | None:
    # Under another prior than N(0, I) a dimension whose mean varies may say nothing, and the other way round.
    if not run.model.prior.per_dimension:
        return None
    name = objective_name(run.config)
    return codes.diagnosis(run.config.beta, name in OBJECTIVES and "free_bits" in OBJECTIVES[name].uses)


def measure_test(run: Run, part: Split, codes: Codes, told: Labels) -> dict[str, Any]:
    """The test numbers: loss and its terms, active units of a VAE, sparsity of a sparse code, the NLL if asked for.

    Also the mean PSNR in dB of the images that the latent means decode to, where pixels are not binarised; and of a
    conditional run loss and terms of each class. A run that infers classes is told none for its losses, and its error
    rate stands beside them.

    Args:
        run: the run.
        part: the test images.
        codes: of them.
        told: the labels that these were encoded with.
    """
    settings, images, labels = run.config, part.images, part.labels
    given = None if run.model.infers else labels
    losses = run.losses(images, given, samples=settings.test_samples)
    test: dict[str, Any] = mean_loss(run.model, losses)
    if run.model.infers and labels is not None:
        test |= error_rate(np.asarray(told), labels)
    if run.model.estimates_kl:
        test["kl_samples"] = settings.test_samples  # the KL is their mean, as it has no closed form
    if run.inputs.binarize == "none":
        test["psnr"] = _mean_psnr(run, part.images, codes, told)
    if run.model.stochastic:
        test["active_units"] = int(codes.active_dimensions().sum())
    if settings.sparsity != "none":
        sparsity = codes.sparsity()
        test |= {"active_share": sparsity.active_share, "dead_units": sparsity.dead}
    if settings.iwae_samples and run.model.stochastic:
        test["iwae_samples"] = settings.iwae_samples
        test["iwae_nll"] = importance_weighted_nll(
            *(run.model, run.params, images, run.evaluation_key),
            samples=settings.iwae_samples,
            inputs=run.inputs._replace(corruption="none"),
            labels=given,
        )
        if has_bits_per_dim(run.model):
            test["iwae_bits_per_dim"] = bits_per_dim(run.model, test["iwae_nll"])
    if run.model.classes:
        test["by_class"] = {name: _of_class(losses, labels == label) for name, label in run.classes.items()}
        test["by_class"] = {name: found for name, found in test["by_class"].items() if found}
    return test


def _of_class(losses: ImageLosses, chosen: Any) -> dict[str, Any]:
    # Means over the images of a class, and the standard error of that of the loss; empty where there are none.
    number, kl = int(chosen.sum()), losses.kl[chosen]
    if not number:
        return {}
    reconstruction = losses.reconstruction[chosen]
    each = reconstruction.astype(np.float64) + kl
    error = {"loss_se": float(np.std(each, ddof=1) / math.sqrt(number))} if number > 1 else {}
    terms = {"loss": each, "reconstruction": reconstruction, "kl": kl}
    return {"number": number} | {name: float(np.mean(values)) for name, values in terms.items()} | error


def _mean_psnr(run: Run, images: Images, codes: Codes, told: Labels) -> float:
    quality, done = [], 0
    for some in pieces(images):
        chosen = slice(done, done + len(some))
        labels = told[chosen] if run.model.classes and told is not None else None
        rebuilt = np.clip(run.decode(codes.means[chosen], labels), 0, 1)
        # An image that is rebuilt exactly is taken for one grey level off in one value.
        quality.append(psnr(some.astype(np.float32) / 255, rebuilt, least_error=1 / 255**2))
        done += len(some)
    return float(np.mean(np.concatenate(quality)))
