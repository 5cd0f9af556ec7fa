"""A run as a page to look around in: `vae-jax explore RUN -o page.html`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import REMEDY
from vae_jax.cli.outputs import free_output
from vae_jax.domains import at_least
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Write a run's latent space as one HTML file that any browser shows: no server, no network.

    It decodes under the pointer, encodes what is drawn or dropped on it, and holds the codes of some test images.
    """

    beside: Annotated[Path | None, "positional"] = None
    """A second run on the same data, shown beside the first: such as an AE beside a VAE."""
    images: int = at_least(0, 256, most=10_000)
    """Test images that the page holds, at most: who has the page has them."""
    output: Path | None = None
    """A name that ends in .html, also given by -o. Default: the run's name with -explore.html, beside it."""
    data_dir: Path | None = None
    """Where the data lies, if no longer where the run found it."""


def run(config: Config) -> Path:
    """Compute, write the page and print what it holds."""
    output = free_output(config.output, config.run, "-explore.html", ".html")
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.explore.page import page_of
    from vae_jax.runs.run import load_dataset_of, load_run

    runs = [load_run(path) for path in (config.run, config.beside) if path is not None]
    page = page_of(runs, [load_dataset_of(run, config.data_dir) for run in runs], config.images)
    with writing(output, REMEDY), replacing(output) as temporary:
        temporary.write_text(page.text, "utf-8")
    print(f"{page.in_words()}\n{output}: {output.stat().st_size / 1e6:.2f} MB")
    return output
