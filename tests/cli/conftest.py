"""What the tests of the commands share."""

import pytest

from experiments.study import trained_together
from vae_jax.cli.command import main
from vae_jax.config import Settings


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, digits):
    """A finished VAE of the embedded digits, as small as it gets; it must not be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    trained_together([path], [Settings(dataset="digits", hidden_sizes=(4,), epochs=1, batch_size=512)], digits)
    (path / "figures").mkdir()
    return path


def refusal(kind, run, arguments, capsys, commands=None):
    """What a command says that refuses its flags: exit code 2, at most two lines on stderr and nothing else."""
    with pytest.raises(SystemExit) as stop:
        main(kind, run, arguments, commands)
    out, error = capsys.readouterr()
    assert (stop.value.code, out) == (2, ""), (arguments, error)
    assert 1 <= len(error.strip().splitlines()) <= 2, error
    assert max(map(len, error.splitlines())) < 500
    return error
