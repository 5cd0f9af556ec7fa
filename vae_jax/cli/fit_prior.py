"""A prior fitted after training: `vae-jax fit-prior RUN --prior flow --output RUN2`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import new_folder
from vae_jax.cli.outputs import free_output
from vae_jax.domains import at_least, seed_field
from vae_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Fit another prior to the latents of a trained run, and write a run that has it.

    Its networks are the same. An AE, which has no prior, can then be drawn from; of a VAE the KL is smaller, as the
    prior is nearer to where the images lie.
    """

    prior: Literal["gaussian", "mixture", "flow"] = "gaussian"
    """One Gaussian with any covariance, in closed form; a mixture of Gaussians; or a normalising flow."""
    prior_components: int = at_least(1, 10, most=10_000)
    """Gaussians of the mixture."""
    prior_layers: int = at_least(1, 6, most=32)
    """Affine couplings of the flow."""
    steps: int = at_least(1, 2000, most=1_000_000)
    """In which a mixture or a flow is fitted, rounded up to a multiple of 20."""
    seed: int = seed_field()
    """Of the fit."""
    output: Path | None = None
    """The run directory to write. Default: the run's name with -PRIOR, beside it."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it."""


def run(config: Config) -> Path:
    """Fit, write the run, draw its figures and print what it is worth beside the run that it comes from."""
    output = free_output(config.output, config.run, f"-{config.prior}", "")
    _check_used(config)
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.cli.figures import draw_run
    from vae_jax.runs.refit import Refit, check_refittable, refitted, write_refitted
    from vae_jax.runs.run import load_dataset_of, load_run

    trained = load_run(config.run)
    check_refittable(trained)
    if config.prior == "flow" and trained.model.latent_dim < 2:
        raise UsageError(
            f"--prior flow needs a run of at least 2 latent dimensions, got {config.run} of 1.\n"
            "Use --prior gaussian or mixture."
        )
    dataset = load_dataset_of(trained, config.data_dir)
    refit = Refit(config.prior, config.prior_components, config.prior_layers, config.steps, config.seed)
    fitted = refitted(trained, dataset, refit)

    def draw(of: Any, codes: Any, test: dict[str, Any]) -> dict[str, Any]:
        draw_run(of, codes, dataset, test)
        return {}

    with new_folder(output) as folder:
        written = write_refitted(fitted, folder, dataset, refit, before=draw)
    print(f"{_in_words(trained, written)}\n{output}")
    return output


def _check_used(config: Config) -> None:
    for name, prior in (("prior_components", "mixture"), ("prior_layers", "flow")):
        if getattr(config, name) != getattr(Config, name) and config.prior != prior:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {getattr(config, name)} has no effect: it needs --prior {prior}.\nLeave it out.")
    if config.prior == "gaussian" and config.steps != Config.steps:
        raise UsageError(f"--steps {config.steps} has no effect: a Gaussian has a closed form.\nLeave it out.")


def _in_words(trained: Any, written: Any) -> str:
    if not written.model.stochastic:
        return "Prior fitted to the codes: generate draws from it."
    before = f" ({trained.summary['test']['kl']:.2f} before)" if trained.summary else ""
    test = written.summary["test"]
    return f"test loss {test['loss']:.2f} = reconstruction {test['reconstruction']:.2f} + KL {test['kl']:.2f}{before}"
