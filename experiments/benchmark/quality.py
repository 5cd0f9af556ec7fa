"""Time to quality: how soon each contestant's own published recipe reaches a loss on images it never saw."""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmark.measure import PATIENCE, unavailable
from experiments.benchmark.sections import QUICK_IMAGES, Plan
from experiments.contestants.job import Job, conv_job, mlp_job
from experiments.contestants.worker import CONTESTANTS, DEFAULT, Worker

TARGETS = (150.0, 145.0, 140.0, 135.0)
"""Nats of reconstruction + KL, grey pixels of MNIST, two latent dimensions.

The last is as near to where our default ends as its seeds are to each other."""
LIMIT = 1200.0
"""Seconds that a contestant gets."""
QUICK_EPOCHS = 2


class Recipe(NamedTuple):
    """How a contestant's own example trains a VAE; the latent is a plane for all."""

    worker: str
    words: str
    epochs: int | None
    """None: all that it wants."""
    arch: str
    hidden_sizes: tuple[int, ...]

    def job(self, data: str, images: int, held_out: str) -> Job:
        """The job of it; Adam at 1e-3 and batches of 128 are the same in all the peers' examples."""
        make = conv_job if self.arch == "conv" else mlp_job
        return make(data, images, hidden_sizes=self.hidden_sizes, latent_dim=2, held_out=held_out)


RECIPES = {
    "ours": Recipe("ours_default", "what `experiments.mnist` decides, by `vae_jax.fit`", None, "mlp", ()),
    "torch": Recipe("torch", "its VAE example", 10, "mlp", (400,)),
    "flax": Recipe("flax", "Flax's VAE example", 30, "mlp", (500,)),
    "keras_tensorflow": Recipe("keras_tensorflow", "Keras's VAE tutorial (Chollet 2020)", 30, "conv", (32, 64)),
}
"""By contestant; the examples are those of github.com/pytorch/examples, github.com/google/flax and keras.io."""


def quality(plan: Plan) -> list[dict[str, Any]]:
    """Seconds of every contestant's recipe to each loss, from the start of its process, and its lowest loss."""
    rows = []
    for name in [name for name in RECIPES if name in plan.contestants]:
        recipe = RECIPES[name]
        if plan.quick:
            recipe = recipe._replace(epochs=min(QUICK_EPOCHS, recipe.epochs or QUICK_EPOCHS))
        # The peers' loops want whole batches.
        images = min(QUICK_IMAGES["conv"], plan.available) if plan.quick else plan.available
        job = recipe.job(plan.data, images if name == "ours" else images // 128 * 128, plan.held_out)
        title = (CONTESTANTS | DEFAULT)[recipe.worker].title
        print(f"quality: {title}, {LIMIT:.0f} s at most", flush=True)
        found = train(recipe, job, LIMIT, plan.logs)
        rows.append({"title": title, "recipe": recipe.words, "limit": LIMIT, **summarise(found), "measured": found})
    return rows


def train(recipe: Recipe, job: Job, limit: float, logs: Path) -> dict[str, Any]:
    """The contestant's curve: after each epoch its seconds so far and the loss of the images held out.

    The seconds begin before its process does, so that start-up and compilation count; what the held-out loss takes is
    left out. It ends with the recipe, or at the limit.
    """
    found: dict[str, Any] = {"curve": []}
    start, left_out = time.perf_counter(), 0.0
    worker = Worker(recipe.worker, logs, job)
    try:
        found |= worker.ask("prepare", PATIENCE, job=job.to_json())
        epochs = recipe.epochs or found.get("epochs", 0)
        while not unavailable(found) and len(found["curve"]) < epochs:
            left = limit - (time.perf_counter() - start - left_out)
            if left <= 0:
                break
            trained = worker.ask("train", left)
            seconds = time.perf_counter() - start - left_out
            if unavailable(trained):
                # No answer at the limit is the end of it, and no failure.
                found |= {} if seconds >= limit else trained
                break
            held_out = worker.ask("held_out", PATIENCE)
            left_out = time.perf_counter() - start - seconds
            if unavailable(held_out):
                found |= held_out
            else:
                found["curve"].append([seconds, held_out["held_out"]])
    finally:
        worker.close()
    return found


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Seconds to each target, None where it was not reached; the lowest loss, and what the whole took."""
    curve = [(seconds, loss) for seconds, loss in found["curve"] if math.isfinite(loss)]
    reached = {f"{target:g}": next((s for s, loss in curve if loss <= target), None) for target in TARGETS}
    return {
        "unavailable": unavailable(found),
        "seconds_to": reached,
        "lowest_loss": min((loss for _, loss in curve), default=None),
        "epochs": len(found["curve"]),
        "seconds": found["curve"][-1][0] if found["curve"] else None,
    }
