"""Settings: bad values are made from the fields' own types and domains, so that a new field is tested unlisted."""

import dataclasses
import math
import re
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from vae_jax.combinations import check_settings
from vae_jax.config import Settings, epochs, hidden_sizes
from vae_jax.domains import allowed, check_fields
from vae_jax.errors import UsageError

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
HINTS = get_type_hints(Settings)
OF_ANOTHER_TYPE = {
    int: [True, 2.5, "2", (2,)],
    float: [True, "0.1", math.nan, (1.0,)],
    bool: [1, "yes", None],
    str: [7, True, ("mlp",)],
    Path: [7, "", True],
    tuple: [7, "12", (2.5,), (True,), (b"1",), (None,)],
}
TUPLES = [(), (0,), (-1,), (2**20 + 1,), (2**31,), (-(2**31) - 1,), (3, 3), tuple(range(1, 102)), (1, -1)]


def kinds(hint):
    return [get_origin(kind) or kind for kind in get_args(hint)] if NoneType in get_args(hint) else [hint]


def edges(name):
    """The smallest and the largest number of a domain, as its words give them."""
    words, real = FIELDS[name].metadata.get("allowed", ""), float in kinds(HINTS[name])
    numbers = [float(number) for number in re.findall(r"\d[\d.]*(?:e[+-]\d+)?", words)][:2]
    return [number if real else int(number) for number in numbers] if len(numbers) == 2 else []


def bad_values(name):
    hint, metadata = HINTS[name], FIELDS[name].metadata
    kind = next(kind for kind in map(lambda kind: get_origin(kind) or kind, kinds(hint)) if kind is not NoneType)
    if kind is Literal or "registry" in metadata:
        return ["no such value", "", 3, ("vae",), *([] if NoneType in get_args(hint) else [None])]
    found = OF_ANOTHER_TYPE[kind] + ([] if NoneType in get_args(hint) else [None])
    if kind is tuple:
        return [*found, *(value for value in TUPLES if not metadata["valid"](value))]
    if kind in (int, float) and edges(name):
        low, high = edges(name)
        step = 1 if kind is int else 1e-6
        found = [*found, low - step, high + max(step, high // 1000), -(2**70), 10**400]
        ends = [low, high, *([math.inf, -math.inf] if kind is float else [])]
        found += [value for value in ends if not metadata["valid"](value)]
    return found


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_outside_its_domain_is_named_with_what_is_allowed(name):
    values = bad_values(name)
    assert values
    for value in values:
        with pytest.raises(UsageError) as error:
            check_settings(dataclasses.replace(Settings(), **{name: value}))
        message = str(error.value)
        assert message.startswith(f"--{name.replace('_', '-')} must be {allowed(FIELDS[name], HINTS[name])}, got ")
        assert repr(value)[:100] in message
        assert len(message) < 400
        assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in FIELDS if "at least" in str(FIELDS[name].metadata.get("allowed"))])
def test_the_ends_of_a_domain_belong_to_it(name):
    for value in edges(name):
        check_fields(dataclasses.replace(Settings(), **{name: (value,) if name == "hidden_sizes" else value}))


CONTEXTS = [
    *(
        {},
        {"model": "ae"},
        {"model": "ae", "arch": "patch"},
        {"arch": "conv"},
        {"arch": "residual"},
        {"likelihood": "gaussian"},
        {"likelihood": "logistic_mixture"},
        {"corruption": "gaussian"},
    ),
    *(
        {"hidden_sizes": ()},
        {"beta": 0.0},
        {"objective": "iwae"},
        {"condition": "inferred"},
        {"sampling": "labelled"},
        {"objective": "tc"},
        {"posterior": "householder"},
        {"prior": "mixture"},
        {"prior": "flow"},
        {"corruption_level": 0.0},
        {"model": "ae", "sparsity": "l1"},
        {"model": "ae", "code_activation": "sigmoid", "sparsity": "kl"},
    ),
]


def another_value(name):
    """Within the domain, and not the default; None where there is none."""
    field, default = FIELDS[name], FIELDS[name].default
    if "registry" in field.metadata or get_origin(HINTS[name]) is Literal:
        names = field.metadata.get("registry", get_args(HINTS[name]))
        return next((value for value in names if value != default), None)
    if type(default) is bool:
        return not default
    if default is None:
        return 2
    return default + (1 if type(default) is int else 0.125)


def refusal(settings):
    """Its words, or none."""
    try:
        check_settings(settings)
    except UsageError as error:
        return str(error)
    return ""


CONDITIONAL = {name: another_value(name) for name, field in FIELDS.items() if "needs" in field.metadata}


@pytest.mark.parametrize("name", [name for name, value in CONDITIONAL.items() if value is not None])
def test_a_setting_is_taken_where_it_acts_and_refused_where_it_has_no_effect(name):
    value, (words, acts) = CONDITIONAL[name], FIELDS[name].metadata["needs"]
    line = f"--{name.replace('_', '-')} {value} has no effect: it needs {words}.\n"
    found = []
    for context in CONTEXTS:
        settings = Settings(**context | {name: value})
        text = refusal(settings)
        assert acts(settings) or text
        assert not (acts(settings) and text.startswith(line))
        found.append("taken" if not text else "refused for it" if text.startswith(line) else "")
    assert set(found) >= {"taken", "refused for it"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "ae", "beta": 4.0}, "--beta 4.0 has no effect: it needs --model vae and --objective elbo"),
        ({"sigma": 3.0}, "--sigma 3.0 has no effect: it needs --likelihood gaussian"),
        ({"beta": 0.0, "free_bits": 0.1}, "--free-bits 0.1 has no effect: it needs .*a --beta above 0"),
        ({"beta": 0.0, "kl_warmup_steps": 5}, "--kl-warmup-steps 5 has no effect: it needs .*a --beta above 0"),
        (
            {"corruption": "gaussian", "corruption_level": 0.0},
            "--corruption gaussian has no effect: it needs a --corruption-level above 0",
        ),
        ({"hidden_sizes": (), "activation": "relu"}, "--activation relu has no effect: it needs hidden layers"),
        (
            {"model": "ae", "code_activation": "sigmoid", "sparsity": "kl"}
            | {"sparsity_weight": 0.0, "sparsity_target": 0.5},
            "--sparsity-target 0.5 has no effect: it needs --sparsity topk, or kl with a --sparsity-weight above 0",
        ),
        (
            {"arch": "patch", "fourier_features": 4, "model": "ae"},
            "--fourier-features 4 .* needs --arch mlp or gated or conv",
        ),
        ({"likelihood": "squared_error"}, "squared_error needs --model ae"),
        ({"arch": "conv", "hidden_sizes": ()}, "at least one layer for --arch conv"),
        ({"arch": "residual", "hidden_sizes": ()}, "at least one layer for --arch residual"),
        ({"augment": ("flip", "flip")}, "--augment must be of flip and crop, each at most once, got "),
        (
            {"arch": "gated", "activation": "relu"},
            "--activation relu has no effect: it needs hidden layers that are not",
        ),
        ({"latent": "vector"}, "--latent vector has no effect: it needs --arch residual"),
        ({"arch": "patch"}, "patch needs --model ae"),
        ({"model": "ae", "sparsity": "kl"}, "add --code-activation sigmoid"),
        ({"model": "ae", "sparsity": "kl", "code_activation": "relu"}, "--code-activation relu"),
        ({"sparsity": "l1"}, "--sparsity l1 has no effect: it needs --model ae"),
        ({"objective": "sparse"}, "--objective must be sparse with --sparsity l1 or kl, and elbo without, got sparse"),
        ({"model": "ae", "objective": "sparse", "sparsity": "topk"}, "--objective must be sparse with"),
        ({"model": "ae", "objective": "elbo", "sparsity": "l1"}, "--objective must be sparse with .* got elbo"),
        *(
            ({"model": "ae", "objective": n}, f"--objective {n} needs --model vae, got --model ae")
            for n in ("iwae", "dreg", "tc")
        ),
        ({"objective": "m2"}, "--objective must be m2 with --condition inferred, and another without, got m2"),
        ({"objective": "iwae", "condition": "inferred"}, "--objective must be m2 with .* got iwae"),
        ({"model": "ae", "condition": "inferred"}, "--condition inferred needs --model vae, got --model ae"),
        ({"labels": 100}, "--labels 100 has no effect: it needs --condition inferred"),
        ({"labelled_share": 0.2}, "--labelled-share 0.2 has no effect: it needs --sampling labelled"),
        ({"objective": "dreg", "elbo_share": 0.5}, "--elbo-share 0.5 has no effect: it needs --objective iwae"),
        ({"tc_weight": 2.0}, "--tc-weight 2.0 has no effect: it needs --objective tc"),
        ({"objective": "tc", "beta": 0.5}, "--beta 0.5 has no effect: it needs --model vae and --objective elbo"),
        ({"objective": "tc", "latent_dim": 1}, "--objective tc needs a --latent-dim of at least 2 .* got 1"),
        ({"objective": "tc", "posterior": "householder"}, "--posterior diagonal, got 2 and householder"),
        ({"objective": "tc", "batch_size": 1}, "--batch-size of at least 2, got 1"),
        ({"objective": "iwae", "beta": 0.5}, "--beta 0.5 has no effect: it needs --model vae and --objective elbo"),
        ({"corruption": "masking", "corruption_level": 2.0}, "--corruption-level must be a share .* got 2.0"),
        ({"mixture_components": 5}, "--mixture-components 5 has no effect: it needs --likelihood logistic_mixture"),
        ({"likelihood": "beta_binomial", "binarize": "dynamic"}, "--binarize must be none .* got dynamic"),
        (
            {"posterior": "householder", "latent_dim": 1},
            "--posterior householder needs a --latent-dim of at least 2, got 1",
        ),
        ({"posterior": "householder", "prior": "vamp"}, "needs --posterior diagonal, got householder"),
        ({"iwae_samples": 5}, "bernoulli on grey pixels is not: add --binarize dynamic"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused_with_a_remedy(changes, words):
    with pytest.raises(UsageError, match=words) as error:
        check_settings(Settings(**changes))
    assert len(str(error.value).splitlines()) <= 2


def test_defaults_are_valid_and_resolve():
    check_settings(Settings())
    assert hidden_sizes(Settings()) == (512, 256, 128)
    assert hidden_sizes(Settings(arch="conv")) == (32, 64)
    assert hidden_sizes(Settings(hidden_sizes=())) == ()
    assert epochs(Settings(), 55_000) == 36
    assert epochs(Settings(), 1_300) == 100
    assert epochs(Settings(epochs=3), 10) == 3


def test_a_value_that_means_the_same_is_held_as_its_field_declares():
    given = Settings(
        *("vae", "mlp", [np.int32(256), 128]),
        latent_dim=np.int64(4),
        learning_rate=np.float32(0.5),
        data_dir="x",
        dataset=Path("images"),
        classes=np.array([1, 2]),
    )
    plain = Settings(
        *("vae", "mlp", (256, 128)),
        latent_dim=4,
        learning_rate=0.5,
        data_dir=Path("x"),
        dataset="images",
        classes=(1, 2),
    )
    check_settings(given)
    assert repr(given) == repr(plain)
    assert hash(given) == hash(plain)
    check_settings(Settings(beta=4, learning_rate=1))  # whole numbers are fine where a float is asked for
