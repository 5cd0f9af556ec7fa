#!/bin/sh
# Train one model in two processes on this machine, as several machines would; the flags are those of experiments.mnist:
#   scripts/two_processes.sh --dataset digits --run-dir runs/two
# PYTHON is the interpreter, by default that of make setup; PORT is the one that the processes meet at.
if [ -z "$PYTHON" ]; then
  PYTHON=python
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
set -- -m experiments.mnist --coordinator "127.0.0.1:${PORT:-12321}" --num-processes 2 "$@"
"$PYTHON" "$@" --process-id 0 &
first=$!
"$PYTHON" "$@" --process-id 1 &
second=$!
# A signal to this script goes to both, which save and end; the first of them says how to go on.
trap 'kill -TERM $first $second 2>/dev/null' INT TERM
wait $first
code=$?
while kill -0 $first 2>/dev/null; do wait $first; code=$?; done
wait $second
while kill -0 $second 2>/dev/null; do wait $second; done
exit $code
