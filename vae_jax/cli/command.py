"""What every command shares: flags from a dataclass, errors in one or two lines, exit codes, a visible warning."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import tyro

from vae_jax._xla import enable_compilation_cache
from vae_jax.config import Settings, check_settings
from vae_jax.domains import at_least, shortened
from vae_jax.errors import RunError, UsageError
from vae_jax.training.processes import connect, ending_together, is_connected, is_first, leave, wait_for_others

START = time.perf_counter()

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Settings):
    """The flags of every command that trains."""

    run_dir: Path | None = None
    """Where the run is written. Default: a new directory under runs/."""
    resume: bool = False
    """Go on with the run in --run-dir from its latest checkpoint; its settings are taken over. A directory in
    which none has begun yet is begun."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train together: give it, --num-processes and --process-id to
    each. On SLURM (srun), Open MPI, GKE and TPU pods they find each other without."""
    num_processes: int | None = at_least(1, None)
    """Of all; 1 alone: look for no cluster."""
    process_id: int | None = at_least(0, None)
    """Number of this process, from 0, which alone prints and writes."""


Command = tuple[type[Any], Callable[[Any], object]]


def main(
    kind: type[T],
    run: Callable[[T], object],
    arguments: Sequence[str] | None = None,
    commands: Mapping[str, Command] | None = None,
) -> None:
    """Parse the command line into `kind`, run, and turn errors into messages and exit codes 1 and 2.

    Args:
        kind: the dataclass of the flags.
        run: what to do with them.
        arguments: the command line without the program's name; by default the process's own, which then ends at
            once where a signal has interrupted it.
        commands: words that, as the first argument, choose other flags and another function.
    """
    warnings.showwarning = _show_warning
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen: Command = (kind, run)
    if commands and arguments and arguments[0] in commands:
        chosen, arguments = commands[arguments[0]], arguments[1:]
    kind, run = chosen
    try:
        config = parse(kind, arguments)
        if getattr(config, "compilation_cache", True):
            enable_compilation_cache()
        if isinstance(config, TrainingConfig):
            connect(config.coordinator, config.num_processes, config.process_id)
        with ending_together():
            run(config)
            wait_for_others()
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


def parse(kind: type[T], arguments: Sequence[str]) -> T:
    """The checked settings of a command line; with --resume, on top of the saved ones.

    Raises:
        UsageError: naming the flag, the value, and what is allowed.
    """
    if "" in arguments:
        before = next((flag for flag in reversed(arguments[: arguments.index("")]) if flag.startswith("--")), None)
        raise UsageError(f"{before or 'An argument'} is empty. Give it a value, or leave it out.")
    config = _tyro(kind, arguments)
    if isinstance(config, TrainingConfig) and config.resume:
        from vae_jax.runs.run import has_begun, read_settings

        if config.run_dir is None:
            raise UsageError("--resume needs --run-dir. Give the directory of the run to go on with.")
        if has_begun(config.run_dir) or not config.run_dir.is_dir():
            saved = read_settings(config.run_dir, type(config))
            saved = dataclasses.replace(saved, coordinator=None, num_processes=None, process_id=None)
            config = _tyro(kind, arguments, default=saved)
    check_settings(config)
    return config


def free_output(given: Path | None, images: Path, ending: str) -> Path:
    """Where to write what is made of a user's images: --output, or their name with `ending` beside them.

    Raises:
        UsageError: it exists, or its folder does not, or it should be an .npz file and is named otherwise.
    """
    source = Path(os.path.abspath(images.expanduser()))  # the folder "." has a name, too
    if given is None and not source.name:
        raise UsageError(f"{images} has no name to write beside. Give one by --output.")
    output = given or source.with_name(source.name.removesuffix(".npz") + ending)
    if ending.endswith(".npz") and output.suffix != ".npz":
        raise UsageError(f"--output must end in .npz, got {str(output)!r}.")
    if output.exists() or output.is_symlink():
        raise UsageError(f"{output} exists, and nothing is overwritten. Give another name by --output.")
    if not output.parent.is_dir():
        raise UsageError(f"--output must lie in a folder that exists, got {str(output)!r}.")
    return output


def where_found(dataset: str | None, data_dir: Path | None, name: str) -> tuple[str, Path | None]:
    """--dataset and --data-dir as they find the data set of that name again from any other folder."""
    found = dataset or name
    if found != name and Path(found).exists():
        found = str(Path(found).absolute())
    folder = data_dir or os.environ.get("VAE_JAX_DATA_DIR")
    return found, Path(folder).expanduser().absolute() if folder else None


def _tyro(kind: type[T], arguments: Sequence[str], default: Any = None) -> T:
    output = io.StringIO()
    options = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(kind, args=list(arguments), **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_shorten(output.getvalue(), kind)) from None


def _shorten(box: str, kind: type[Any]) -> str:
    # tyro draws a box of several paragraphs: keep its message, drop the frame, of whatever characters, and the helps.
    plain = [line.strip("│╭╰╮╯ \n") for line in box.splitlines()[1:]]
    paragraphs = "\n".join("" if set(line) <= set("-─") else line for line in plain).split("\n\n")
    text = " ".join(next(part for part in paragraphs if part.strip()).split())
    guess = re.search(r"Perhaps you meant:\s*(--[\w-]+)", "\n".join(plain).replace("─", ""))
    flag = re.search(r"--[\w-]+", text)
    fields = {f"--{field.name.replace('_', '-')}": field.metadata.get("allowed") for field in dataclasses.fields(kind)}
    allowed = fields.get(flag[0]) if flag else None
    remedy = f"Did you mean {guess[1]}? " if guess else f"It must be {allowed}. " if allowed else ""
    return f"{shortened(text.rstrip('.'), 250)}.\n{remedy}See --help for all flags."


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category is not UserWarning:
        print(f"{category.__name__}: {message}", file=sys.stderr)
        return
    bar = "!" * 78
    print(f"{bar}\nWARNING: {message}\n{bar}", file=sys.stderr, flush=True)


def _exit(message: str, code: int, at_once: bool = False) -> NoReturn:
    try:
        if code <= 2 or is_first():  # a signal comes to all processes, and one says what to do
            print(message, file=sys.stderr)
    finally:
        if at_once or is_connected():
            leave(code)
    sys.exit(code)
