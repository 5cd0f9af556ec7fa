#!/bin/sh
# Train one model in two processes on this machine, as several machines would; the flags are those of experiments.mnist:
#   scripts/two_processes.sh --dataset digits --run-dir runs/two
# PYTHON is the interpreter, PORT the one that the processes meet at.
PYTHON=${PYTHON:-python}
COORDINATOR=127.0.0.1:${PORT:-12321}
set -- -m experiments.mnist --coordinator "$COORDINATOR" --num-processes 2 "$@"
"$PYTHON" "$@" --process-id 1 &
second=$!
"$PYTHON" "$@" --process-id 0
first=$?
wait "$second" || exit 1
exit "$first"
