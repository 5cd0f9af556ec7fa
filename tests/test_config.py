import dataclasses

import pytest

from vae_jax.config import Settings, check_settings, epochs, hidden_sizes
from vae_jax.errors import UsageError


def test_defaults_are_valid_and_resolve():
    check_settings(Settings())
    assert hidden_sizes(Settings()) == (512, 256, 128)
    assert hidden_sizes(Settings(arch="conv")) == (32, 64)
    assert hidden_sizes(Settings(hidden_sizes=())) == ()
    assert epochs(Settings(), 55_000) == 36
    assert epochs(Settings(), 1_300) == 100
    assert epochs(Settings(epochs=3), 10) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "gan"),
        ("arch", "resnet"),
        ("activation", 3),
        ("precision", "float16"),
        ("hidden_sizes", (0,)),
        ("hidden_sizes", (2.5,)),
        ("hidden_sizes", [4]),
        ("dense_size", -1),
        ("fourier_features", -1),
        ("latent_dim", 0),
        ("latent_dim", 2.0),
        ("latent_dim", True),
        ("latent_dim", "2"),
        ("likelihood", "poisson"),
        ("sigma", 0.0),
        ("sigma", float("inf")),
        ("binarize", "static"),
        ("beta", -1.0),
        ("beta", float("nan")),
        ("kl_warmup_steps", -1),
        ("free_bits", float("inf")),
        ("dataset", 7),
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_fraction", 1.0),
        ("gradient_clip", -1.0),
        ("ema_decay", 1.0),
        ("patience", -2),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_value_outside_its_domain_is_named_with_what_is_allowed(name, value):
    with pytest.raises(UsageError) as error:
        check_settings(dataclasses.replace(Settings(), **{name: value}))
    message = str(error.value)
    assert message.startswith(f"--{name.replace('_', '-')} must be ")
    assert repr(value) in message
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "squared_error"},
        {"arch": "conv", "hidden_sizes": ()},
        {"model": "ae", "arch": "patch", "fourier_features": 4},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused_with_a_remedy(changes):
    with pytest.raises(UsageError) as error:
        check_settings(Settings(**changes))
    assert len(str(error.value).splitlines()) <= 2


def test_whole_numbers_are_fine_where_a_float_is_asked_for():
    check_settings(Settings(beta=4, learning_rate=1))
