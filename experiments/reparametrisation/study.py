"""Trains, measures, draws and reports: the study of `experiments.reparametrisation`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.markdown import markdown_table
from experiments.reparametrisation import Config
from experiments.reparametrisation.figures import gradients
from experiments.study import begin
from vae_jax.data.loading import load_dataset
from vae_jax.measures.gradients import expected_loss, pathwise_gradient, plain_gradient, score_function_gradient
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.inputs import preprocess
from vae_jax.runs.run import Run

NAMES = {
    "pathwise": "pathwise: z = mean + sigma * noise",
    "baseline": "score function with baseline",
    "score": "score function",
    "plain": "plain sample, no path",
}


def run(config: Config) -> dict[str, Any]:
    """Train, estimate, draw, report; gives back the summary."""
    dataset = load_dataset(config.dataset, config.data_dir)
    settings = config.settings(dataset, hidden_sizes=(128, 64), batch_size=min(64, len(dataset.train)))
    study = begin(config, "reparametrisation", dataset, [settings])
    vae = study.train({"vae": settings})["vae"]
    found = _estimate(vae, dataset.test.images[: config.images], config.draws)
    # Ratios of means over the images: some images have hardly any gradient left.
    length = np.mean(found["length"])
    relative = {name: float(np.mean(found["variance"][name]) / length) for name in NAMES}
    bias = {name: float(np.sqrt(np.mean(found["error"][name] ** 2) / length)) for name in NAMES}
    title = f"Gradient of the expected reconstruction loss for the posterior of an image ({dataset.name})"
    study.draw("gradient_variance.png", gradients(relative, bias, NAMES, found["draws"], found["true"], title))
    times = {name: relative[name] / relative["pathwise"] for name in ("baseline", "score")}
    return study.finish(
        _report(config, dataset.name, relative, bias, times),
        relative_variance=relative,
        relative_error_of_the_mean=bias,
        samples_for_equal_variance=times,
    )


def _estimate(run: Run, images: np.ndarray, draws: int) -> dict[str, Any]:
    key = run.evaluation_key
    keys = (
        jax.random.split(key, draws),
        # Samples of their own for the baseline and for the reference, these common to both ends of each difference.
        jax.random.split(jax.random.fold_in(key, draws), 1000),
        jax.random.split(jax.random.fold_in(key, draws + 1), 10 * draws),
    )
    of_one = jax.jit(lambda x: _estimate_one(run.model, run.params, x, *keys))
    every = jax.tree.map(np.asarray, jax.lax.map(of_one, preprocess(jnp.asarray(images))))
    typical = np.argsort(every["length"])[len(images) // 2]
    return {
        "variance": {name: every["found"][name][0] for name in NAMES},
        "error": {name: every["found"][name][1] for name in NAMES},
        "draws": {name: every["found"][name][2][typical] for name in NAMES},
        "true": every["true"][typical],
        "length": every["length"],
    }


def _estimate_one(model: Any, params: Any, x: Any, keys: Any, baseline_keys: Any, reference_keys: Any) -> Any:
    # Of one image: the true gradient with its squared length, and of each estimator the variance, the error of the
    # mean and its first 200 gradients.
    def loss(z: jax.Array) -> jax.Array:
        return model.likelihood.reconstruction_loss(model.decode(params, z[None]), x[None])[0]

    encoded = model.encode(params, x[None])
    q = DiagonalGaussian(encoded.mean[0], encoded.logvar[0])
    baseline = expected_loss(loss, q, baseline_keys)
    flat = jnp.concatenate([q.mean, q.logvar])
    size = jnp.concatenate([0.05 * jnp.exp(0.5 * q.logvar), jnp.full_like(q.logvar, 0.05)])

    def expected(values: jax.Array) -> jax.Array:
        mean, logvar = jnp.split(values, 2)
        return expected_loss(loss, DiagonalGaussian(mean, logvar), reference_keys)

    differences = jax.lax.map(lambda step: expected(flat + step) - expected(flat - step), jnp.diag(size))
    true = differences / (2 * size)
    estimators = {
        "pathwise": lambda key: pathwise_gradient(loss, q, key),
        "baseline": lambda key: score_function_gradient(loss, q, key, baseline),
        "score": lambda key: score_function_gradient(loss, q, key),
        "plain": lambda key: plain_gradient(loss, q, key),
    }
    found = {}
    for name, estimator in estimators.items():
        each = jax.vmap(estimator)(keys)
        values = jnp.concatenate([each.mean, each.logvar], axis=-1)
        mean = values.mean(axis=0)
        found[name] = (jnp.sum(values.var(axis=0)), jnp.linalg.norm(mean - true), values[:200])
    return {"found": found, "length": jnp.sum(true**2), "true": true}


def _report(
    config: Config, dataset: str, variance: dict[str, float], error: dict[str, float], times: dict[str, float]
) -> str:
    rows = [[title, f"{variance[name]:.3g}", f"{error[name]:.1%}"] for name, title in NAMES.items()]
    return f"""# What the reparametrisation does: {dataset}, {config.latent_dim}-D

{markdown_table(["gradient for (mean, logvar) of the posterior", "variance", "error of the mean"], rows)}

Variance of one sample's gradient over the squared length of the true one; distance of the mean of {config.draws:,} \
from finite differences under common random numbers of their own.
For the pathwise variance of one sample the score function needs {times["score"]:,.0f} samples, \
{times["baseline"]:,.0f} with a baseline. Through a plain sample no gradient comes at all."""
