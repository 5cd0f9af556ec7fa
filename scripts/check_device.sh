#!/bin/sh
# Test and time vae_jax on the device of this machine, in at most nine minutes: scripts/check_device.sh OUTPUT
# PYTHON is the interpreter, by default that of make setup.
if [ -z "$PYTHON" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
exec "$PYTHON" -m experiments.check_device --output "${1:-runs/device}"
