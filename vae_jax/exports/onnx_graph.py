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
from onnx import helper, numpy_helper

from vae_jax.domains import shortened
from vae_jax.errors import UsageError
from vae_jax.exports.functions import Function
from vae_jax.exports.onnx_rules import RULES, SAME, Value, ints

OPSET, IR_VERSION = 18, 9
MOST_BYTES = 2**31 - 2**20
"""Of an ONNX file."""


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
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refusal(error) from error
    path.write_bytes(content.SerializeToString())


def load(path: Path) -> Callable[..., Any]:
    """The function of such a file.

    Raises:
        UsageError: ONNX Runtime can't run it.
    """
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise _refusal(error) from error
    names = [given.name for given in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def _refusal(error: Exception) -> UsageError:
    reason = " ".join(str(error).split())
    return UsageError(f"--format onnx can't hold this model: {shortened(reason, 200)}\nUse --format stablehlo.")


class _Graph:
    # The nodes so far.
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
        if name in SAME:
            return [self.node(SAME[name], *inputs)]
        if name not in RULES:
            raise UsageError(
                f"--format onnx has no form of the operation {name}, which this model needs.\nUse --format stablehlo."
            )
        found = RULES[name](self, equation, *inputs)
        return found if isinstance(found, list) else [found]

    def shape(self, sides: Sequence[Any]) -> Value:
        # For an operator; the number of rows is that of the first input.
        if all(type(side) is int for side in sides):
            return ints(sides)
        rows = self.node("Shape", self.first, start=0, end=1)
        return self.node("Concat", *(ints([s]) if type(s) is int else rows for s in sides), axis=0)
