"""What every command shares: its flags, errors in one or two lines, exit codes, a warning that is seen."""

import dataclasses
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from vae_jax._xla import enable_compilation_cache
from vae_jax.cli.flags import HELP, guess, help_text, read_flags
from vae_jax.combinations import check_settings
from vae_jax.config import Settings
from vae_jax.domains import at_least, choice, setting
from vae_jax.errors import RunError, UsageError
from vae_jax.training.processes import connect, ending_together, is_connected, is_first, leave, wait_for_others

START = time.perf_counter()

T = TypeVar("T")
Command = tuple[type[Any], Callable[[Any], object]]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The flags of every command on a run."""

    run: Annotated[Path, "positional"]
    """The run directory."""
    compilation_cache: bool = dataclasses.field(default=True, kw_only=True)
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def _by_images(name: str) -> Any:
    # A setting that the images decide where it is not given.
    field = Settings.__dataclass_fields__[name]
    valid = field.metadata.get("valid", lambda _: True)
    return dataclasses.field(default=None, metadata={**field.metadata, "valid": lambda v: v is None or valid(v)})


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Settings):
    """The flags of every command that trains."""

    arch: str | None = _by_images("arch")  # type: ignore[assignment]
    """Fully connected (or gated), strided convolutions, a code at each patch, residual blocks. Default: mlp for grey
    images of at most 1,024 pixels, else residual."""
    likelihood: str | None = _by_images("likelihood")  # type: ignore[assignment]
    """Distribution of a pixel given the latent. Default: bernoulli for small grey and for binarised images, else
    discretized_logistic."""
    hidden_sizes: tuple[int, ...] | None = _by_images("hidden_sizes")
    """Widths of the encoder's hidden layers, channels or blocks; the decoder mirrors them. Default: 512 256 128 for
    mlp, 256 256 256 256 for the plane (see --fourier-features), 300 300 for gated, 32 64 for conv, 64 64 for patch,
    128 128 for residual."""
    latent_dim: int | None = _by_images("latent_dim")  # type: ignore[assignment]
    """Dimensions of the latent space. Default: 2; of residual 16 a place, or 128 as a vector."""
    fourier_features: int | None = _by_images("fourier_features")  # type: ignore[assignment]
    """Sines, and as many cosines, of the latent that the decoder sees beside it; their frequencies are trained.
    Default: 64 for the plane, a VAE of mlps with at most 2 latent dimensions for at least 10,000 images of grey pixels
    under a Bernoulli; else none."""
    epochs: int | None = _by_images("epochs")
    """Passes over the training images. Default: 20 for the plane (see --fourier-features), else 36, and 100 for fewer
    than 10,000 images. More of them on --resume stretch the rate's cosine from there on."""
    batch_size: int | None = _by_images("batch_size")  # type: ignore[assignment]
    """Images a step. Default: 256; 32 for residual or few images."""
    learning_rate: float | None = _by_images("learning_rate")  # type: ignore[assignment]
    """Peak of the rate, which falls to 1% along a cosine. Default: 0.003, of residual 0.006, or
    0.002 with --latent vector."""

    run_dir: Path | None = choice(None, group="run", common=True)
    """Where the run is written. Default: a new directory under runs/."""
    resume: bool = choice(False, group="run", common=True)
    """Go on with the run in --run-dir from its latest checkpoint; its settings are taken over. A directory in
    which none has begun yet is begun."""
    minutes: float | None = setting(
        None,
        "a number above 0 and at most 1e6",
        lambda v: v is None or 0 < v <= 1e6,
        group="training",
        common=True,
    )
    """Train for about so long, in place of --epochs."""
    init_from: Path | None = choice(None, group="training")
    """A run whose parameters this one begins with, where their names and shapes agree."""
    track: Literal["none", "tensorboard"] = choice("none", group="run")
    """Whether the numbers of each epoch and the figures are written for TensorBoard, too, to RUN/tensorboard;
    to be given again with --resume."""
    compilation_cache: bool = choice(True, group="devices")
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""
    coordinator: str | None = choice(None, group="devices")
    """HOST:PORT of process 0, where several processes train together: give it, --num-processes and --process-id to
    each. On SLURM (srun), Open MPI, GKE and TPU pods they find each other without."""
    num_processes: int | None = at_least(1, None, group="devices")
    """Of all; 1 alone: look for no cluster."""
    process_id: int | None = at_least(0, None, group="devices")
    """Number of this process, from 0, which alone prints and writes."""


def main(
    kind: type[T],
    run: Callable[[T], object] | None,
    arguments: Sequence[str] | None = None,
    commands: Mapping[str, Command] | None = None,
) -> None:
    """Parse the command line into `kind`, run, and turn errors into messages and exit codes 1 and 2.

    Args:
        kind: the dataclass of the flags.
        run: what to do with them; None where one of the commands has to be named.
        arguments: the command line without the program's name; by default the process's own, which then ends at
            once where a signal has interrupted it.
        commands: words that, as the first argument, choose other flags and another function.
    """
    warnings.showwarning = _show_warning
    own_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _main(kind, run, arguments, commands or {})
    except UsageError as error:
        _exit(str(error), 2)
    except RunError as error:
        _exit(str(error), 1)
    except KeyboardInterrupt as stop:
        # At once, as the interpreter's own end crashes where XLA is still compiling in a thread.
        _exit(str(stop) or "Interrupted.", 128 + getattr(stop, "number", 2), at_once=own_process)
    except BrokenPipeError:
        sys.stderr.close()
        if own_process:
            leave(1)
        sys.exit(1)
    except OSError as error:
        _exit(f"{error.filename or 'Input or output'}: {error.strerror or error}.", 1)


def _main(kind: Any, run: Any, arguments: list[str], commands: Mapping[str, Command]) -> None:
    word = arguments.pop(0) if arguments and arguments[0] in commands else ""
    if word:
        (kind, run), commands = commands[word], {}
    if HELP.intersection(arguments):
        about = {name: (each.__doc__ or "").partition("\n")[0] for name, (each, _) in commands.items()}
        print(help_text(kind, f"{_program()} {word}".strip(), about, "--help-all" in arguments))
        return
    if run is None:
        found = (
            f"{arguments[0]} is no command.{guess(arguments[0], commands)}" if arguments else "A command is missing."
        )
        raise UsageError(f"{found}\nIt must be one of {', '.join(commands)}; see --help.")
    config = parse(kind, arguments)
    if getattr(config, "compilation_cache", True):
        enable_compilation_cache()
    if isinstance(config, TrainingConfig):
        connect(config.coordinator, config.num_processes, config.process_id)
    with ending_together():
        run(config)
        wait_for_others()


def parse(kind: type[T], arguments: Sequence[str]) -> T:
    """The checked settings of a command line; with --resume, on top of the saved ones.

    Raises:
        UsageError: naming the flag, the value, and what is allowed.
    """
    given = read_flags(kind, arguments)
    config = kind(**given)
    if isinstance(config, TrainingConfig) and config.resume:
        # Here, as it imports JAX, which --help and a bad flag do not wait for.
        from vae_jax.runs.folders import has_begun
        from vae_jax.runs.records import read_settings

        if config.run_dir is None:
            raise UsageError("--resume needs --run-dir. Give the directory of the run to go on with.")
        if has_begun(config.run_dir) or not config.run_dir.is_dir():
            # Both say when a run ends; that the run had the one is no fault of who gives the other.
            ends = {"steps", "epochs"}
            other: dict[str, Any] = dict.fromkeys(ends - given.keys()) if ends & given.keys() else {}
            config = dataclasses.replace(read_settings(config.run_dir, type(config)), **other, **given)
    check_settings(config)
    return config


def where_found(dataset: str | None, data_dir: Path | None, name: str) -> tuple[str, Path | None]:
    """--dataset and --data-dir as they find the data set of that name again from any other folder."""
    found = dataset or name
    if found != name and Path(found).exists():
        found = str(Path(found).absolute())
    folder = data_dir or os.environ.get("VAE_JAX_DATA_DIR")
    return found, Path(folder).expanduser().absolute() if folder else None


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    bar = "!" * 78
    said = f"{bar}\nWARNING: {message}\n{bar}" if category is UserWarning else f"{category.__name__}: {message}"
    print(said, file=sys.stderr, flush=True)


def _exit(message: str, code: int, at_once: bool = False) -> NoReturn:
    try:
        if code <= 2 or is_first():  # a signal comes to all processes, and one says what to do
            print(message, file=sys.stderr)
    finally:
        if at_once or is_connected():
            leave(code)
    sys.exit(code)
