"""Files that are never half-written, locks that no crash leaves behind, and the two signals."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vae_jax.cli.signals import Signals
from vae_jax.errors import Interrupted, RunError
from vae_jax.files import append_line, check_locked, locked, remove_leftovers, replacing
from vae_jax.runs.orbax import quiet

ROOT = Path(__file__).parents[1]


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="a"), replacing(tmp_path / "a") as temporary:
        (temporary / "not a folder").write_text("new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_lines_are_appended_whole(tmp_path):
    append_line(tmp_path / "a", "one")
    append_line(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one\ntwo\n"


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in (".a.png.12.tmp", "a.png", ".hidden", "a.tmp", ".lock"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", ".hidden", "a.tmp", ".lock"}


def test_a_second_one_is_refused_and_told_what_to_do(tmp_path):
    refused = []

    def second():
        try:
            with locked(tmp_path / "run"):
                pass
        except RunError as error:
            refused.append(str(error))

    with locked(tmp_path / "run"), locked(tmp_path / "run"):  # the same thread may ask again
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    found, remedy = refused[0].splitlines()
    assert found == f"{tmp_path / 'run'} is being written by another process; nothing was changed."
    assert "--run-dir" in remedy
    assert list((tmp_path / "run").iterdir()) == []
    second()
    assert len(refused) == 1


def test_a_crash_leaves_no_lock_behind(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from vae_jax.files import locked
with locked(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, str(tmp_path)).returncode == -signal.SIGKILL
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_refused_while_the_lock_is_held(tmp_path):
    code = """
import sys
from pathlib import Path
from vae_jax.files import locked
with locked(Path(sys.argv[1])):
    print("held")
"""
    with locked(tmp_path / "run"):
        assert "RunError" in python(code, str(tmp_path / "run")).stderr
        check_locked(tmp_path / "run")
    assert python(code, str(tmp_path / "run")).stdout == "held\n"


def test_a_folder_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file can't be written.*\nGive another --run-dir"), locked(tmp_path / "file"):
        pass


def test_a_signal_waits_while_there_is_something_to_save_and_raises_elsewhere():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Signals() as signals:
        signals.saving = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            signals.end()
    with Signals(), pytest.raises(Interrupted, match="SIGINT") as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop.value.number == signal.SIGINT
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_second_signal_leaves_at_once():
    code = """
import os, signal, time
from vae_jax.cli.signals import Signals
with Signals() as signals:
    signals.saving = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""
    result = python(code)
    assert result.returncode == -signal.SIGINT
    assert result.stderr.strip() == "SIGTERM: stopping. Once more to stop at once."


def test_a_signal_in_a_callback_of_the_garbage_collector_is_kept_without_a_word(capsys):
    class Collected:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    quiet()
    with Signals() as signals:
        Collected()
        with pytest.raises(Interrupted, match="SIGTERM"):
            signals.end()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("read", [True, False], ids=["read", "its reader is gone"])
def test_a_command_interrupted_while_xla_compiles_in_a_thread_ends_with_a_line_and_its_code(read):
    code = """
import os, signal, threading, time
import jax, jax.numpy as jnp
from vae_jax.cli.command import main
from experiments.reparametrisation import Config

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started without

def run(_):
    def long(x):
        for number in range(400):
            x = jnp.sort(x * number)
        return x

    lowered = jax.jit(long).lower(jnp.ones(1000))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    print("compiling")
    lowered.compile()
    time.sleep(5)  # it was too quick

main(Config, run)
"""
    if read:
        result = python(code)
        assert (result.returncode, result.stderr.strip()) == (128 + signal.SIGINT, "Interrupted.")
    else:
        reader, writer = os.pipe()
        os.close(reader)
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=buffered, stdout=writer, stderr=writer)
        os.close(writer)
        assert process.wait(60) == 128 + signal.SIGINT


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter():
        with Signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_was_never_locked_is_not_taken_for_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_locked(tmp_path)


@pytest.mark.parametrize("again", ["", "folder", "link", "deleted"])
def test_a_locked_folder_that_is_moved_is_noticed(tmp_path, again):
    with locked(tmp_path / "run"):
        check_locked(tmp_path / "run")
        if again == "deleted":
            shutil.rmtree(tmp_path / "run")
        else:
            (tmp_path / "run").rename(tmp_path / "elsewhere")
        if again == "folder":
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / ".lock").touch()
        elif again == "link":
            (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match="moved or deleted"):
            check_locked(tmp_path / "run")
    assert (tmp_path / "run" / ".lock").exists() == (again == "folder")
