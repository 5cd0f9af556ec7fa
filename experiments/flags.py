"""The flags that studies share. Light, so that --help and a bad flag do not wait for JAX."""

import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vae_jax.cli.command import where_found
from vae_jax.combinations import with_effect
from vae_jax.config import MANY_IMAGES, Settings
from vae_jax.domains import MOST_UNITS, are_different, layer_sizes, setting
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset

_SETTINGS = {field.name for field in dataclasses.fields(Settings)}


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The flags of every study."""

    dataset: str | None = None
    """mnist, fashion_mnist, kmnist, digits, cifar10, svhn_cropped, binarized_mnist, omniglot, dsprites, another
    prepared TFDS data set, or the path of an .npz, .npy or .csv file or a folder of images. Default: mnist, and digits
    where mnist can't be had."""
    data_dir: Path | None = None
    """Where the data lies. Default: the environment variable VAE_JAX_DATA_DIR."""
    output: Path | None = None
    """Folder for the report, the figures and the runs. Default: a new one under runs/. Of a folder that holds
    this study already, the finished runs are taken over."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""

    def settings(self, dataset: "Dataset", **changes: Any) -> Settings:
        """The settings of a run on this data, which it finds again from any other folder.

        A flag of the study that is also a setting is that of its runs, unless `changes` names another. What has no
        effect on a run, such as beta on an autoencoder, is none of its settings.
        """
        name, folder = where_found(self.dataset, self.data_dir, dataset.name)
        own = {name: value for name, value in vars(self).items() if name in _SETTINGS}
        return with_effect(Settings(**(own | changes | {"dataset": name, "data_dir": folder})))

    def flags(self) -> dict[str, Any]:
        """The study's own flags, beside those of every study."""
        common = {field.name for field in dataclasses.fields(StudyConfig)}
        return {name: value for name, value in vars(self).items() if name not in common}


@dataclasses.dataclass(frozen=True)
class NetworkConfig(StudyConfig):
    """The flags of a study of AEs and VAEs with networks of the user's choice."""

    arch: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional with stride 2."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes()
    """Widths of the encoder's hidden layers (channels for conv), mirrored by the decoder.
    Default: 512 256 128 for mlp, 32 64 for conv."""


def by_size(dataset: "Dataset", many: int, few: int) -> int:
    """The default of a flag: `many` for at least 10,000 training images, else `few`."""
    return many if len(dataset.train) >= MANY_IMAGES else few


def check_budget(minutes: float | None, steps: int | None) -> None:
    """Refuse, by a UsageError, that both are given."""
    if minutes and steps:
        raise UsageError(f"--minutes {minutes:g} and --steps {steps} both say when a run ends.\nLeave one out.")


def latent_dims(*default: int) -> Any:
    """The field of several latent dimensions."""
    return setting(
        default,
        f"different integers of at least 1 and at most {MOST_UNITS}",
        lambda v: are_different(v) and all(1 <= d <= MOST_UNITS for d in v),
    )


def run(config: StudyConfig) -> dict[str, Any]:
    """Run the study of these flags, which is the module `study` beside them; gives back its summary."""
    summary: dict[str, Any] = importlib.import_module(f"{type(config).__module__}.study").run(config)
    return summary
