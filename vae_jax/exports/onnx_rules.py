"""How operations of JAX become operators of ONNX, one by one.

A rule takes the graph (a `vae_jax.exports.onnx_graph._Graph`), the equation and its inputs, and gives the value of the
equation's one result, or a list of several.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from vae_jax.errors import UsageError

Value = str | np.ndarray
"""The name of a value in the graph, or the value itself where it is a constant."""
_END = 2**31 - 1

SAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"},
    **{"tanh": "Tanh", "logistic": "Sigmoid", "exp": "Exp", "log": "Log", "neg": "Neg", "abs": "Abs", "sign": "Sign"},
    **{"sin": "Sin", "cos": "Cos", "sqrt": "Sqrt", "erf": "Erf", "floor": "Floor", "ceil": "Ceil"},
    **{"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal"},
    **{"and": "And", "or": "Or", "not": "Not", "stop_gradient": "Identity", "copy": "Identity", "copy_p": "Identity"},
}
"""Operations of JAX that are operators of ONNX."""


def ints(values: Sequence[Any]) -> np.ndarray:
    """As an operator takes sizes, axes and places."""
    return np.array(values, np.int64)


def _reshape(graph: Any, equation: Any, x: Value) -> Value:
    sides = [side if type(side) is int else -1 for side in equation.outvars[0].aval.shape]
    return graph.node("Reshape", x, ints(sides))


def _broadcast(graph: Any, equation: Any, x: Value) -> Value:
    sides, kept = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    own = equation.invars[0].aval.shape
    apart = [own[kept.index(axis)] if axis in kept else 1 for axis in range(len(sides))]
    x = graph.node("Reshape", x, ints([side if type(side) is int else -1 for side in apart]))
    return graph.node("Expand", x, graph.shape(sides))


def _slice(graph: Any, equation: Any, x: Value) -> Value:
    sides, params = equation.invars[0].aval.shape, equation.params
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(sides)
    axes = [axis for axis in range(len(sides)) if (starts[axis], ends[axis], steps[axis]) != (0, sides[axis], 1)]
    chosen = [ints([values[axis] for axis in axes]) for values in (starts, ends)]
    return graph.node("Slice", x, *chosen, ints(axes), ints([steps[axis] for axis in axes]))


def _rev(graph: Any, equation: Any, x: Value) -> Value:
    axes = equation.params["dimensions"]
    last, first, step = (ints([value] * len(axes)) for value in (-1, -_END, -1))
    return graph.node("Slice", x, last, first, ints(axes), step)


def _pad(graph: Any, equation: Any, x: Value, filling: Value) -> Value:
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    _check(not any(interior), equation)
    return graph.node("Pad", x, ints([*low, *high]), filling)


def _split(graph: Any, equation: Any, x: Value) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    found: Any = graph.node("Split", x, ints(sizes), results=len(sizes), axis=axis)
    return found if len(sizes) > 1 else [found]


def _select(graph: Any, equation: Any, which: Value, *cases: Value) -> Value:
    _check(len(cases) == 2 and equation.invars[0].aval.dtype == bool, equation)
    return graph.node("Where", which, cases[1], cases[0])


def _gather(graph: Any, equation: Any, x: Value, places: Value) -> Value:
    # One part of a map or one place along an axis, which x[:, :3] and x[:, 3] are where the rows have no number.
    numbers, sides = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    axes, sizes, apart = numbers.start_index_map, equation.params["slice_sizes"], numbers.operand_batching_dims
    _check(isinstance(places, np.ndarray) and places.size == len(axes) and not apart, equation)
    _check(all(sizes[axis] == side for axis, side in enumerate(sides) if axis not in axes), equation)
    starts = np.asarray(places).reshape(-1).astype(np.int64)
    ends = starts + [sizes[axis] for axis in axes]
    part = graph.node("Slice", x, starts, ends.astype(np.int64), ints(axes))
    return graph.node("Squeeze", part, ints(numbers.collapsed_slice_dims)) if numbers.collapsed_slice_dims else part


def _dot(graph: Any, equation: Any, x: Value, y: Value) -> Value:
    (left, right), (batch, other) = equation.params["dimension_numbers"]
    ranks = [len(atom.aval.shape) for atom in equation.invars]
    if ranks == [2, 2] and (tuple(left), tuple(right)) == ((1,), (0,)):
        return graph.node("MatMul", x, y)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in range(ranks[0])]
    same = dict(zip([*right, *other], [first[axis] for axis in [*left, *batch]], strict=True))
    second = [same.get(axis) or next(letters) for axis in range(ranks[1])]
    result = [first[axis] for axis in batch]
    result += [letter for axis, letter in enumerate(first) if axis not in (*left, *batch)]
    result += [letter for axis, letter in enumerate(second) if axis not in (*right, *other)]
    return graph.node("Einsum", x, y, equation=f"{''.join(first)},{''.join(second)}->{''.join(result)}")


def _convolution(graph: Any, equation: Any, x: Value, kernel: Value) -> Value:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    low, high = zip(*params["padding"], strict=True)
    groups, spread = params["feature_group_count"], params["lhs_dilation"]
    _check(isinstance(kernel, np.ndarray) and params["batch_group_count"] == 1, equation)
    x = graph.node("Transpose", x, perm=numbers.lhs_spec)
    weights = np.asarray(kernel).transpose(numbers.rhs_spec)
    if all(step == 1 for step in spread):
        options = {"strides": params["window_strides"], "dilations": params["rhs_dilation"], "group": groups}
        y = graph.node("Conv", x, weights, pads=[*low, *high], **options)
    else:  # the transposed one: its kernel is seen from the other side
        sides = weights.shape[2:]
        pads = [side - 1 - given for given, side in zip([*low, *high], [*sides, *sides], strict=True)]
        plain = all(s == 1 for s in (*params["window_strides"], *params["rhs_dilation"], groups))
        _check(plain and min(pads) >= 0, equation)
        turned = np.flip(weights, tuple(range(2, weights.ndim))).swapaxes(0, 1)
        y = graph.node("ConvTranspose", x, turned, strides=spread, pads=pads)
    return graph.node("Transpose", y, perm=[int(axis) for axis in np.argsort(numbers.out_spec)])


def _power(graph: Any, equation: Any, x: Value) -> Value:
    exponent = equation.params["y"]
    if exponent in (2, 3):
        square = graph.node("Mul", x, x)
        return square if exponent == 2 else graph.node("Mul", square, x)
    return graph.node("Pow", x, np.array(exponent, np.float32))


def _cast(graph: Any, equation: Any, x: Value) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    return graph.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(dtype))


def _largest(graph: Any, equation: Any, x: Value) -> list[Value]:
    axis, number = equation.params.get("axis", -1), equation.params["k"]
    values, places = graph.node("TopK", x, ints([number]), results=2, axis=axis)
    return [values, graph.node("Cast", places, to=TensorProto.INT32)]


def _solve(graph: Any, equation: Any, matrix: Value, right: Value) -> Value:
    # By the inverse, as the matrix, a prior's, is known.
    params = equation.params
    plain = params["left_side"] and not params["unit_diagonal"] and not params["conjugate_a"]
    _check(plain and isinstance(matrix, np.ndarray) and matrix.ndim == 2, equation)
    triangle = (np.tril if params["lower"] else np.triu)(np.asarray(matrix, np.float64))
    inverse = np.linalg.inv(triangle.T if params["transpose_a"] else triangle)
    return graph.node("MatMul", inverse.astype(np.float32), right)


def _reduced(operator: str) -> Callable[..., Value]:
    return lambda graph, equation, x: graph.node(operator, x, ints(equation.params["axes"]), keepdims=0)


def _check(good: bool, equation: Any) -> None:
    if not good:
        raise UsageError(
            f"--format onnx has no form of this use of the operation {equation.primitive.name}.\n"
            "Use --format stablehlo."
        )


_ONE = np.array(1, np.float32)
RULES: dict[str, Callable[..., Any]] = {
    **{"reshape": _reshape, "broadcast_in_dim": _broadcast, "slice": _slice, "rev": _rev, "pad": _pad, "split": _split},
    **{"select_n": _select, "gather": _gather, "dot_general": _dot, "conv_general_dilated": _convolution},
    **{"integer_pow": _power, "convert_element_type": _cast, "top_k": _largest, "triangular_solve": _solve},
    **{"reduce_sum": _reduced("ReduceSum"), "reduce_max": _reduced("ReduceMax"), "reduce_min": _reduced("ReduceMin")},
    "transpose": lambda graph, equation, x: graph.node("Transpose", x, perm=equation.params["permutation"]),
    "concatenate": lambda graph, equation, *parts: graph.node("Concat", *parts, axis=equation.params["dimension"]),
    "squeeze": lambda graph, equation, x: graph.node("Squeeze", x, ints(equation.params["dimensions"])),
    "square": lambda graph, _, x: graph.node("Mul", x, x),
    "rsqrt": lambda graph, _, x: graph.node("Reciprocal", graph.node("Sqrt", x)),
    "log1p": lambda graph, _, x: graph.node("Log", graph.node("Add", x, _ONE)),
    "expm1": lambda graph, _, x: graph.node("Sub", graph.node("Exp", x), _ONE),
    "erfc": lambda graph, _, x: graph.node("Sub", _ONE, graph.node("Erf", x)),
    "clamp": lambda graph, _, low, x, high: graph.node("Min", graph.node("Max", x, low), high),
}
"""How the others are translated: from the graph, the equation and its inputs to its result."""
