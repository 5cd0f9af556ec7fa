"""Networks in integers, so that every machine computes the same, whatever the order of a sum.

A value is an integer in units of 2^-10, a weight one of 2^-12. Products and sums are carried by float64, exact as long
as no sum can reach 2^53, which `check_sums` sees to; after each layer the sum is rounded to the units of a value. So
neither threads, batches, fused operations nor the processor's kernels change a bit. NumPy alone, no JAX.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

VALUE_BITS = 10
WEIGHT_BITS = 12
UNIT = 2**VALUE_BITS
"""A value of 1."""
LIMIT = 2**24
"""No value is larger: +-16,384."""
REACH = 16 * UNIT
"""An activation's table goes from -REACH to REACH - 1; beyond it is constant, or rises with its argument."""
EXACT = 2**53
Values: TypeAlias = Shaped[np.ndarray, "..."]
"""float64 that holds integers, the batch first."""
Layer: TypeAlias = list[Any]
"""Name of the operation and its arguments, as JSON has them."""
Arrays: TypeAlias = Mapping[str, np.ndarray]
_CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def activation_table(name: str) -> np.ndarray:
    """An activation at each value of its table, which `store_steps` makes small; floats decide it once and for all."""
    return np.rint(UNIT * _CURVES[name](np.arange(-REACH, REACH) / UNIT)).astype(np.int64)


def store_steps(table: np.ndarray) -> np.ndarray:
    """A table as its steps in one byte each, the first value before them, so that a file of it is small."""
    steps = np.diff(table, prepend=0)
    return np.concatenate([np.frombuffer(np.int32(steps[0]).tobytes(), np.int8), steps[1:].astype(np.int8)])


def read_steps(stored: np.ndarray) -> np.ndarray:
    """The table of `store_steps`."""
    first = int(np.frombuffer(stored[:4].tobytes(), "<i4")[0])
    return np.cumsum(np.concatenate([[first], stored[4:].astype(np.int64)]))


def weights(kernel: np.ndarray, bias: np.ndarray, scale: Any = 1.0, offset: Any = 0.0) -> dict[str, np.ndarray]:
    """Integer kernel and bias of a layer whose output y becomes scale * y + offset, of each output channel.

    The bias has the units of a product, and half a value's unit within, so that what is cut off is rounded.
    """
    wide = np.float64(kernel) * scale * 2**WEIGHT_BITS
    shift = (np.float64(bias) * scale + offset) * 2 ** (VALUE_BITS + WEIGHT_BITS)
    if not (np.isfinite(wide).all() and np.isfinite(shift).all()):
        raise OverflowError("a parameter is not finite")
    if max(np.abs(wide).max(initial=0), np.abs(shift).max(initial=0)) >= EXACT:
        raise OverflowError("a parameter is too large")
    whole = np.rint(wide).astype(np.int64)
    fits = np.abs(whole).max(initial=0) < 2**15
    small = whole.astype(np.int16 if fits else np.int64)
    return {"kernel": small, "bias": np.rint(shift).astype(np.int64) + 2 ** (WEIGHT_BITS - 1)}


def check_sums(kernel: np.ndarray, bias: np.ndarray) -> None:
    """See that no sum of a layer can reach 2^53, whatever its input and its order.

    Raises:
        OverflowError: one can.
    """
    columns = np.abs(kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)).sum(axis=0)
    most = float(LIMIT * columns.max(initial=0) + np.abs(bias).max(initial=0))
    if not most < EXACT:
        raise OverflowError(f"a sum can reach {most:.3g}, where {EXACT:.3g} is exact")


def prepared(arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays of a network as `apply` takes them, their sums checked.

    Raises:
        OverflowError: as of `check_sums`.
    """
    found = {}
    for name, array in arrays.items():
        if name.endswith(".kernel"):
            check_sums(array, arrays[name.removesuffix("kernel") + "bias"])
        table = read_steps(array) if name.startswith("activation.") else array
        found[name] = table.astype(np.float64)
    return found


def apply(layers: list[Layer], arrays: Arrays, x: Values, batch: int) -> Values:
    """What a network gives for x, of at most `batch` examples at a time, which does not change it.

    Args:
        layers: its operations, in their order.
        arrays: from `prepared`.
        x: the input, batch first.
        batch: how many examples at a time.
    """
    parts = [_through(layers, arrays, x[start : start + batch]) for start in range(0, len(x), batch)]
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def _through(layers: list[Layer], arrays: Arrays, x: Values) -> Values:
    kept: list[Values] = []
    for name, *arguments in layers:
        if name == "keep":
            kept.append(x)
        elif name == "add":
            x = np.clip(kept.pop() + x, -LIMIT, LIMIT)
        elif name in ("dense", "conv", "transposed"):
            x = _OPERATIONS[name](x, arrays[f"{arguments[0]}.kernel"], arrays[f"{arguments[0]}.bias"], *arguments[1:])
        elif name == "activation":
            x = _activate(x, arrays[f"activation.{arguments[0]}"])
        else:
            x = _OPERATIONS[name](x, *arguments)
    return x


def _activate(x: Values, table: np.ndarray) -> Values:
    inside = table.take(x.astype(np.int64) + REACH, mode="clip")
    # Beyond the table the steps of its end go on: those of all but tanh rise with x.
    return inside + np.maximum(x - (REACH - 1), 0) if table[-1] - table[-2] > 0 else inside


def _product(x: Values, kernel: Values, bias: Values) -> Values:
    y = x @ kernel.reshape(-1, kernel.shape[-1])
    y += bias
    y *= 2.0**-WEIGHT_BITS
    np.floor(y, out=y)
    return np.clip(y, -LIMIT, LIMIT, out=y)


def _dense(x: Values, kernel: Values, bias: Values) -> Values:
    return _product(x.reshape(len(x), -1), kernel, bias)


def _conv(x: Values, kernel: Values, bias: Values, stride: int) -> Values:
    taps, sides = kernel.shape[:2], x.shape[1:3]
    number = [-(-side // stride) for side in sides]
    pads = []
    for side, out, k in zip(sides, number, taps, strict=True):
        total = max((out - 1) * stride + k - side, 0)  # as XLA's SAME
        pads.append((total // 2, total - total // 2))
    return _correlate(np.pad(x, ((0, 0), *pads, (0, 0))), kernel, bias, stride)


def _transposed(x: Values, kernel: Values, bias: Values) -> Values:
    # Of stride 2 and side 3: zeros between the values, then a convolution (as XLA's SAME).
    batch, height, width, channels = x.shape
    spread = np.zeros((batch, 2 * height + 2, 2 * width + 2, channels))
    spread[:, 2 : 2 * height + 1 : 2, 2 : 2 * width + 1 : 2] = x
    return _correlate(spread, kernel, bias, 1)


def _correlate(x: Values, kernel: Values, bias: Values, stride: int) -> Values:
    rows, columns = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), axis=(1, 2))[:, ::stride, ::stride]
    batch, height, width = windows.shape[:3]
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(batch * height * width, -1)
    return _product(flat, kernel, bias).reshape(batch, height, width, -1)


def _shape(x: Values, *shape: int) -> Values:
    return x.reshape(len(x), *shape)


def _crop(x: Values, height: int, width: int) -> Values:
    return x[:, :height, :width]


def _permute(x: Values, shape: list[int], axes: list[int]) -> Values:
    # The batch stays first.
    return x.reshape(len(x), *shape).transpose(0, *(axis + 1 for axis in axes))


def _blocks(x: Values, down: int, across: int) -> Values:
    batch, height, width, channels = x.shape
    rows, columns = -(-height // down), -(-width // across)
    x = np.pad(x, ((0, 0), (0, rows * down - height), (0, columns * across - width), (0, 0)))
    x = x.reshape(batch, rows, down, columns, across, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, -1)


def _pixels(x: Values, down: int, across: int) -> Values:
    batch, rows, columns, depth = x.shape
    x = x.reshape(batch, rows, columns, down, across, depth // (down * across)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * down, columns * across, -1)


def _beside(x: Values, rows: int, columns: int, numbers: int) -> Values:
    # A latent map followed by numbers of its class: the numbers at each place, then as one map.
    places, own = x[:, : x.shape[1] - numbers], x[:, x.shape[1] - numbers :]
    places = places.reshape(len(x), rows, columns, -1)
    spread = np.broadcast_to(own[:, None, None], (len(x), rows, columns, numbers))
    return np.concatenate([places, spread], axis=-1).reshape(len(x), -1)


_OPERATIONS: dict[str, Callable[..., Values]] = {
    "dense": _dense,
    "conv": _conv,
    "transposed": _transposed,
    "shape": _shape,
    "crop": _crop,
    "permute": _permute,
    "blocks": _blocks,
    "pixels": _pixels,
    "beside": _beside,
}
