"""20 SGD steps under each layout of 8 virtual devices, as JSON: run by test_parallel, as devices are set at start."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.study import trained_together
from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.models import autoencoders as models
from vae_jax.models.autoencoders import build_model
from vae_jax.training import streaming
from vae_jax.training.devices import Layout, choose_layout
from vae_jax.training.fit import Hooks, fit, go_on, make_recipe
from vae_jax.training.many import fit_many
from vae_jax.training.program import Progress, compile_program, run_epoch
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import Data, init_state, zero_metrics

IMAGES = (np.random.default_rng(0).uniform(size=(50, 8, 8, 1)) ** 3 * 255).astype(np.uint8)
LABELS = np.arange(50, dtype=np.int32) % 3
SGD = optax.sgd(3e-3, momentum=0.5)
VAE = Settings(hidden_sizes=(16,), latent_dim=6, batch_size=10, kl_warmup_steps=4, ema_decay=0.9, binarize="dynamic")
VAE = dataclasses.replace(VAE, augment=("flip", "crop"))
AE = Settings(model="ae", hidden_sizes=(16,), latent_dim=12, code_activation="sigmoid", sparsity="kl", batch_size=10)
CASES = {
    "vae": VAE,
    "free bits": dataclasses.replace(VAE, free_bits=0.03, condition="labels"),
    "sparse": dataclasses.replace(AE, sparsity_weight=2.0, sparsity_target=0.1),
    "denoising": dataclasses.replace(AE, sparsity="none", corruption="salt_and_pepper", batch_size=13),
    "dreg": dataclasses.replace(VAE, kl_warmup_steps=0, objective="dreg", importance_samples=3),
    "tc": dataclasses.replace(VAE, kl_warmup_steps=0, objective="tc", arch="conv", hidden_sizes=(3,)),
    "conv": dataclasses.replace(VAE, arch="conv", hidden_sizes=(4, 8), batch_size=16, binarize="none"),
    "residual": dataclasses.replace(VAE, arch="residual", hidden_sizes=(6, 4), latent_dim=8),
}


def after_20_steps(settings, layout):
    """Vectors of all parameters with their moving average, of what they were at first, and of the steps' metrics."""
    settings = dataclasses.replace(settings, checkpoint_every_steps=3)
    recipe = Recipe(build_model(settings, (8, 8, 1), 3), settings, len(IMAGES), given_optimizer=SGD)
    state, steps = init_state(recipe), recipe.steps
    program = compile_program(recipe, Data(*jax.device_put((IMAGES, LABELS))), state, layout)
    progress, seen = Progress(state, zero_metrics(steps)), []
    for epoch in range(20 // steps):
        progress = run_epoch(program, recipe, epoch, progress._replace(metrics=zero_metrics(steps)), None)
        seen.append(progress.metrics)
    trees = [(of.params, of.ema_params) for of in (progress.state, init_state(recipe))]
    return tuple(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (*trees, seen))


def differences(layouts):
    """Of each case and layout to one device: the largest of a parameter, and of a metric in relation to its size."""
    for case, chosen in layouts.items():
        params, initial, metrics = after_20_steps(CASES[case], Layout())
        yield f"{case}: moved", (float(np.max(np.abs(params - initial))), 0.0)
        for kind, number in chosen:
            layout = Layout(tuple(jax.devices()[:number]), mapped=kind == "pmap")
            other, _, seen = after_20_steps(CASES[case], layout)
            relative = np.max(np.abs(seen - metrics) / np.maximum(1, np.abs(metrics)))
            yield f"{case}: {kind} on {number}", (float(np.max(np.abs(other - params))), float(relative))


def largest_difference(a, b):
    """Of two trees of arrays."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


def fitted():
    """What `fit` gives its callers under pmap, that a state goes on under another layout, and streams to all."""
    train, validation, states, devices = Split(IMAGES[:42], None), Split(IMAGES[42:], None), {}, set()
    settings = dataclasses.replace(VAE, epochs=2, checkpoint_every_steps=2)
    model = build_model(settings, (8, 8, 1))

    def keep(state, row):
        states[row["epoch"]] = jax.tree.map(np.array, state)

    def part(progress):
        devices.update(len(leaf.devices()) for leaf in jax.tree.leaves(progress[:2]))

    def goes_on(progress, history, **changes):
        recipe = make_recipe(model, train, dataclasses.replace(settings, **changes))
        return go_on(recipe, train, validation, progress, history, Hooks(on_part=part))

    whole = fit(model, train, validation, settings, on_epoch=keep)
    progress = Progress(jax.tree.map(jnp.asarray, states[1]), zero_metrics(5))
    mapped = goes_on(progress, whole.history[:1], parallel="pmap")
    devices.update(len(leaf.devices()) for leaf in jax.tree.leaves(mapped.state))
    streaming.BUFFER_BYTES = 2 * IMAGES[:10].nbytes  # three buffers an epoch
    streamed = goes_on(None, [], parallel="jit", device_data="never")
    layouts = {kind: choose_layout(kind) for kind in ("auto", "jit", "pmap")}
    return {
        "devices": sorted(devices),
        "differences": [largest_difference(whole.state, other.state) for other in (mapped, streamed)],
        "layouts": {kind: [len(layout.devices), layout.mapped] for kind, layout in layouts.items()},
    }


def together(settings, number, classes=None):
    """Largest difference of a parameter of models trained on 8 devices to the same on one, by model."""
    members = [dataclasses.replace(settings, seed=i % 3, beta=0.5 * (i + 1), epochs=1) for i in range(number)]
    if classes:
        members = [dataclasses.replace(m, classes=classes[i % len(classes)]) for i, m in enumerate(members)]
    model, splits = build_model(settings, (8, 8, 1)), (Split(IMAGES[:42], LABELS[:42]), Split(IMAGES[42:], LABELS[42:]))
    one = fit_many(model, *splits, members)
    many = fit_many(model, *splits, [dataclasses.replace(member, parallel="jit") for member in members])
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a.history[0]["validation"]["loss"], b.history[0]["validation"]["loss"], rtol=1e-5)
    return [largest_difference(a.state, b.state) for a, b in zip(one, many, strict=True)]


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    models.CHUNK = 2  # so that one device and each of two take their part of a batch of convolutions in chunks
    every = {case: [(kind, number) for kind in ("jit", "pmap") for number in (1, 2, 8)] for case in CASES}
    few = {"free bits": [("pmap", 2)], "tc": [("jit", 8)]}
    if sys.argv[1] == "few":
        digits = Settings(dataset="digits", hidden_sizes=(4,), epochs=1, batch_size=512)
        with jax.default_device(jax.devices()[3]):
            trained_together([Path(sys.argv[2])], [digits], vae_jax.load_dataset("digits"))
        found = {"fit": fitted(), "together": together(VAE, 9, [(0,), (1, 2)])} | dict(differences(few))
    else:
        found = {"together": together(VAE, 9) + together(CASES["conv"], 3)} | dict(differences(every))
    json.dump(found, sys.stdout)
