"""ONNX: the equations of a traced function become the nodes of a graph, whatever the architecture that they come from.

What has no symbolic size and depends on no input is worked out while the graph is made.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from jax import export
from jax.extend.core import Literal
from onnx import TensorProto, helper, numpy_helper

from vae_jax.errors import UsageError
from vae_jax.exports.functions import Function

OPSET, IR_VERSION = 18, 9
MOST_BYTES = 2**31 - 2**20
"""Of an ONNX file."""

Value = str | np.ndarray
"""The name of a value in the graph, or the value itself where it is a constant."""
_END = 2**31 - 1

_SAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"},
    **{"tanh": "Tanh", "logistic": "Sigmoid", "exp": "Exp", "log": "Log", "neg": "Neg", "abs": "Abs", "sign": "Sign"},
    **{"sin": "Sin", "cos": "Cos", "sqrt": "Sqrt", "erf": "Erf", "floor": "Floor", "ceil": "Ceil"},
    **{"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal"},
    **{"and": "And", "or": "Or", "not": "Not", "stop_gradient": "Identity", "copy": "Identity", "copy_p": "Identity"},
}
"""Operations of JAX that are operators of ONNX."""
_WITHIN = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Where an equation that stands for others holds them."""


def write(function: Function, path: Path) -> None:
    """Write the function, its parameters within.

    Raises:
        UsageError: it has an operation that is not translated, or is too large.
    """
    (number,) = export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct((number, *given.shape), given.dtype) for given in function.inputs]
    closed = jax.make_jaxpr(function.call)(*shapes)
    names = [given.name if given.name not in function.outputs else f"{given.name}_in" for given in function.inputs]
    graph = _Graph(names[0])
    results = graph.inlined(closed.jaxpr, closed.consts, names)
    for result, name in zip(results, function.outputs, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name_of(result)], [name]))
    content = graph.model(function, names, closed.out_avals)
    if content.ByteSize() > MOST_BYTES:
        raise UsageError("--format onnx holds at most 2 GiB, and this model is larger.\nUse --format stablehlo.")
    onnx.checker.check_model(content, full_check=True)
    path.write_bytes(content.SerializeToString())


def load(path: Path) -> Callable[..., Any]:
    """The function of such a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


class _Graph:
    # The nodes so far. What a rule gives is the value of its equation's one result, or a list of several.
    def __init__(self, first: str):
        self.first, self.nodes, self.constants = first, list[Any](), list[Any]()

    def model(self, function: Function, names: list[str], outputs: Sequence[Any]) -> Any:
        def described(name: str, shape: Sequence[Any], dtype: Any) -> Any:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        given = [described(n, ["n", *each.shape], each.dtype) for n, each in zip(names, function.inputs, strict=True)]
        shapes = [["n" if type(side) is not int else side for side in each.shape] for each in outputs]
        found = [described(n, s, e.dtype) for n, s, e in zip(function.outputs, shapes, outputs, strict=True)]
        graph = helper.make_graph(self.nodes, function.name, given, found, self.constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="vae_jax")

    def name_of(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def node(self, operator: str, *inputs: Value, results: int = 1, **attributes: Any) -> Any:
        names = [f"{operator.lower()}{len(self.nodes)}_{i}" for i in range(results)]
        given = [self.name_of(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, given, names, **attributes))
        return names if results > 1 else names[0]

    def inlined(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            aval: Any = atom.aval
            return np.asarray(atom.val, aval.dtype) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            results = self.translated(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def translated(self, equation: Any, inputs: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        inner = next((params[key] for key in _WITHIN if key in params), None)
        if name == "platform_index":  # of any other than those that are named
            return [np.array(params["platforms"].index(None))]
        if name == "cond" and not isinstance(inputs[0], str):
            inner, inputs = params["branches"][int(inputs[0])], inputs[1:]
        if inner is not None and name not in ("scan", "while"):
            return self.inlined(inner.jaxpr, inner.consts, inputs)
        fixed = all(type(side) is int for result in equation.outvars for side in result.aval.shape)
        if fixed and not any(isinstance(value, str) for value in inputs):
            given = equation.primitive.bind(*map(jax.numpy.asarray, inputs), **params)
            return [np.asarray(each) for each in (given if equation.primitive.multiple_results else [given])]
        if name in _SAME:
            return [self.node(_SAME[name], *inputs)]
        if name not in _RULES:
            raise UsageError(
                f"--format onnx has no form of the operation {name}, which this model needs.\nUse --format stablehlo."
            )
        found = _RULES[name](self, equation, *inputs)
        return found if isinstance(found, list) else [found]

    def shape(self, sides: Sequence[Any]) -> Value:
        # For an operator; the number of rows is that of the first input.
        if all(type(side) is int for side in sides):
            return _ints(sides)
        rows = self.node("Shape", self.first, start=0, end=1)
        return self.node("Concat", *(_ints([s]) if type(s) is int else rows for s in sides), axis=0)


def _ints(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, np.int64)


def _reshape(graph: _Graph, equation: Any, x: Value) -> Value:
    sides = [side if type(side) is int else -1 for side in equation.outvars[0].aval.shape]
    return graph.node("Reshape", x, _ints(sides))


def _broadcast(graph: _Graph, equation: Any, x: Value) -> Value:
    sides, kept = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    own = equation.invars[0].aval.shape
    apart = [own[kept.index(axis)] if axis in kept else 1 for axis in range(len(sides))]
    x = graph.node("Reshape", x, _ints([side if type(side) is int else -1 for side in apart]))
    return graph.node("Expand", x, graph.shape(sides))


def _slice(graph: _Graph, equation: Any, x: Value) -> Value:
    sides, params = equation.invars[0].aval.shape, equation.params
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(sides)
    axes = [axis for axis in range(len(sides)) if (starts[axis], ends[axis], steps[axis]) != (0, sides[axis], 1)]
    chosen = [_ints([values[axis] for axis in axes]) for values in (starts, ends)]
    return graph.node("Slice", x, *chosen, _ints(axes), _ints([steps[axis] for axis in axes]))


def _rev(graph: _Graph, equation: Any, x: Value) -> Value:
    axes = equation.params["dimensions"]
    last, first, step = (_ints([value] * len(axes)) for value in (-1, -_END, -1))
    return graph.node("Slice", x, last, first, _ints(axes), step)


def _pad(graph: _Graph, equation: Any, x: Value, filling: Value) -> Value:
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    _check(not any(interior), equation)
    return graph.node("Pad", x, _ints([*low, *high]), filling)


def _split(graph: _Graph, equation: Any, x: Value) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    found: Any = graph.node("Split", x, _ints(sizes), results=len(sizes), axis=axis)
    return found if len(sizes) > 1 else [found]


def _select(graph: _Graph, equation: Any, which: Value, *cases: Value) -> Value:
    _check(len(cases) == 2 and equation.invars[0].aval.dtype == bool, equation)
    return graph.node("Where", which, cases[1], cases[0])


def _gather(graph: _Graph, equation: Any, x: Value, places: Value) -> Value:
    # One part of a map or one place along an axis, which x[:, :3] and x[:, 3] are where the rows have no number.
    numbers, sides = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    axes, sizes, apart = numbers.start_index_map, equation.params["slice_sizes"], numbers.operand_batching_dims
    _check(isinstance(places, np.ndarray) and places.size == len(axes) and not apart, equation)
    _check(all(sizes[axis] == side for axis, side in enumerate(sides) if axis not in axes), equation)
    starts = np.asarray(places).reshape(-1).astype(np.int64)
    ends = starts + [sizes[axis] for axis in axes]
    part = graph.node("Slice", x, starts, ends.astype(np.int64), _ints(axes))
    return graph.node("Squeeze", part, _ints(numbers.collapsed_slice_dims)) if numbers.collapsed_slice_dims else part


def _dot(graph: _Graph, equation: Any, x: Value, y: Value) -> Value:
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


def _convolution(graph: _Graph, equation: Any, x: Value, kernel: Value) -> Value:
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


def _power(graph: _Graph, equation: Any, x: Value) -> Value:
    exponent = equation.params["y"]
    if exponent in (2, 3):
        square = graph.node("Mul", x, x)
        return square if exponent == 2 else graph.node("Mul", square, x)
    return graph.node("Pow", x, np.array(exponent, np.float32))


def _cast(graph: _Graph, equation: Any, x: Value) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    return graph.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(dtype))


def _largest(graph: _Graph, equation: Any, x: Value) -> list[Value]:
    axis, number = equation.params.get("axis", -1), equation.params["k"]
    values, places = graph.node("TopK", x, _ints([number]), results=2, axis=axis)
    return [values, graph.node("Cast", places, to=TensorProto.INT32)]


def _reduced(operator: str) -> Callable[..., Value]:
    return lambda graph, equation, x: graph.node(operator, x, _ints(equation.params["axes"]), keepdims=0)


def _check(good: bool, equation: Any) -> None:
    if not good:
        raise UsageError(
            f"--format onnx has no form of this use of the operation {equation.primitive.name}.\n"
            "Use --format stablehlo."
        )


_ONE = np.array(1, np.float32)
_RULES: dict[str, Callable[..., Any]] = {
    **{"reshape": _reshape, "broadcast_in_dim": _broadcast, "slice": _slice, "rev": _rev, "pad": _pad, "split": _split},
    **{"select_n": _select, "gather": _gather, "dot_general": _dot, "conv_general_dilated": _convolution},
    **{"integer_pow": _power, "convert_element_type": _cast, "top_k": _largest},
    **{"reduce_sum": _reduced("ReduceSum"), "reduce_max": _reduced("ReduceMax"), "reduce_min": _reduced("ReduceMin")},
    "transpose": lambda graph, equation, x: graph.node("Transpose", x, perm=equation.params["permutation"]),
    "concatenate": lambda graph, equation, *parts: graph.node("Concat", *parts, axis=equation.params["dimension"]),
    "squeeze": lambda graph, equation, x: graph.node("Squeeze", x, _ints(equation.params["dimensions"])),
    "square": lambda graph, _, x: graph.node("Mul", x, x),
    "rsqrt": lambda graph, _, x: graph.node("Reciprocal", graph.node("Sqrt", x)),
    "log1p": lambda graph, _, x: graph.node("Log", graph.node("Add", x, _ONE)),
    "expm1": lambda graph, _, x: graph.node("Sub", graph.node("Exp", x), _ONE),
    "erfc": lambda graph, _, x: graph.node("Sub", _ONE, graph.node("Erf", x)),
    "clamp": lambda graph, _, low, x, high: graph.node("Min", graph.node("Max", x, low), high),
}
"""How the others are translated: from the graph, the equation and its inputs to its result."""
