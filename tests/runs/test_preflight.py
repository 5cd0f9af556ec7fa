import dataclasses

import flax.linen as nn
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs import preflight
from vae_jax.runs.preflight import check_trainable

SETTINGS = Settings(dataset="digits", hidden_sizes=(16,), batch_size=256)
PARAMETERS = 64 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 64 + 64
VALUES = (16 + 4) + 4 + (16 + 64) + 64
"""What the dense layers and the two networks give for an image of 8x8 pixels."""


def assert_needed(number, settings, digits, monkeypatch, **arguments):
    """So many bytes of memory are enough, and one less is refused."""
    monkeypatch.setattr(preflight, "_memory", lambda: number)
    check_trainable(settings, digits, **arguments)
    monkeypatch.setattr(preflight, "_memory", lambda: number - 1)
    with pytest.raises(UsageError, match="GiB"):
        check_trainable(settings, digits, **arguments)


@pytest.mark.parametrize(
    ("changes", "together", "floats"),
    [
        ({}, 1, 4 * PARAMETERS + 2 * 256 * VALUES),
        ({"ema_decay": 0.9}, 1, 5 * PARAMETERS + 2 * 256 * VALUES),
        ({"batch_size": 32}, 3, 3 * (4 * PARAMETERS + 2 * 32 * VALUES)),
        ({"objective": "iwae", "importance_samples": 10}, 1, 4 * PARAMETERS + 2 * 256 * (24 + 10 * 144)),
        ({"objective": "tc"}, 1, 4 * PARAMETERS + 2 * 256 * (VALUES + 256 * 2)),
    ],
    ids=["plain", "average", "together", "several latents", "pairs"],
)
def test_memory_is_that_of_parameters_and_what_layers_give(changes, together, floats, digits, monkeypatch):
    settings = dataclasses.replace(SETTINGS, **changes)
    assert_needed(4 * floats, settings, digits, monkeypatch, together=together)


class Doubling(nn.Module):
    """A network that the library knows nothing of: two layers, one of them in a module of its own."""

    @nn.compact
    def __call__(self, x):
        return nn.GroupNorm(num_groups=2)(nn.Dense(4)(x.reshape(x.shape[0], -1)))


def test_networks_of_any_kind_are_counted(digits, monkeypatch):
    model = dataclasses.replace(build_model(SETTINGS, digits.image_shape), encoder=Doubling())
    monkeypatch.setattr(preflight, "build_model", lambda *_: model)
    values = 3 * 4 + (16 + 64) + 64
    parameters = 64 * 4 + 4 + 2 * 4 + 2 * 16 + 16 + 16 * 64 + 64
    assert_needed(4 * (4 * parameters + 2 * 256 * values), SETTINGS, digits, monkeypatch)


def test_what_does_not_fit_is_refused_in_words(digits, monkeypatch):
    monkeypatch.setattr(preflight, "_memory", lambda: 2**18)
    with pytest.raises(UsageError, match=r"--hidden-sizes 16 and --batch-size 256 needs 0.0 GiB.*\nGive smaller"):
        check_trainable(SETTINGS, digits)
