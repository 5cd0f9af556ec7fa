"""What makes a run a finished one: its numbers on the test split, and summary.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.dataset import Dataset
from vae_jax.data.stored import pieces
from vae_jax.models.autoencoders import AnyModel, count_parameters
from vae_jax.models.codes import Codes
from vae_jax.models.evaluation import importance_weighted_nll
from vae_jax.models.inputs import Inputs
from vae_jax.models.quality import bits_per_dim, has_bits_per_dim, psnr
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
    images = dataset.test.of_classes(run.config.classes).images
    codes, rows = run.encode(images), run.metrics
    test = measure_test(run, images, codes)
    diagnosis = codes.diagnosis(run.config.beta)
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


def measure_test(run: Run, images: Any, codes: Codes) -> dict[str, Any]:
    """The test numbers: loss and its terms, active units of a VAE, sparsity of a sparse code, the NLL if asked for.

    Also the mean PSNR in dB of the images that the latent means decode to, where pixels are not binarised.
    """
    settings = run.config
    test: dict[str, Any] = run.evaluate(images, samples=settings.test_samples)
    if run.inputs.binarize == "none":
        test["psnr"] = _mean_psnr(run, images, codes)
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
        )
        if has_bits_per_dim(run.model):
            test["iwae_bits_per_dim"] = bits_per_dim(run.model, test["iwae_nll"])
    return test


def _mean_psnr(run: Run, images: Any, codes: Codes) -> float:
    quality, done = [], 0
    for some in pieces(images):
        rebuilt = np.clip(run.decode(codes.means[done : done + len(some)]), 0, 1)
        # An image that is rebuilt exactly is taken for one grey level off in one value.
        quality.append(psnr(some.astype(np.float32) / 255, rebuilt, least_error=1 / 255**2))
        done += len(some)
    return float(np.mean(np.concatenate(quality)))
