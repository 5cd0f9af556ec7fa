"""The layout of devices: on which of them a step runs, and what each of them holds of it.

Parameters, optimiser state and images that are not streamed are on every device; a batch is spread over them. Noise is
drawn by example, so the layout does not decide the parameters, beyond rounding.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")
AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Some devices, of one process or of many, and how a step is spread over them."""

    devices: tuple[jax.Device, ...] = ()
    """Those of a process side by side. None: the default device, by plain jit."""
    mapped: bool = False
    """By pmap; else by jit, over a mesh of the devices."""

    @property
    def axis(self) -> str | None:
        """The axis over which a step has to sum, as a device sees its part of the batch; None where it sees all."""
        return AXIS if self.devices else None

    def replicated(self, tree: T) -> T:
        """Arrays of this process, the same in every process, on all devices; it may take their memory over."""
        if not self.devices:
            return tree
        sharding = self._sharding()
        if not sharding.is_fully_addressable:
            tree = jax.tree.map(np.array, tree)  # a copy: the steps take the memory over
        return self._put(tree, sharding)

    def spread(self, buffer: T) -> T:
        """The batches of some steps, [steps, batch, ...] as `divided`, each over all devices; not for pmap."""
        return self._put(buffer, self._sharding(None, AXIS)) if self.devices else jax.device_put(buffer)

    def local(self, tree: T) -> T:
        """Replicated arrays as they are on this process's first device, in the same memory."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree) if self.devices else tree

    def divided(self, batches: T) -> T:
        """Batches [steps, batch] as the steps take them: with zeros up to a multiple of the devices.

        For pmap they get a first axis, [devices of this process, steps, batch / devices].
        """
        number = max(1, len(self.devices))

        def divide(leaf: Any) -> Any:
            leaf = jnp.pad(leaf, ((0, 0), (0, -leaf.shape[1] % number)))
            if not self.mapped:
                return leaf
            own = np.array([device.process_index == jax.process_index() for device in self.devices])
            return jnp.moveaxis(leaf.reshape(len(leaf), number, -1), 1, 0)[np.flatnonzero(own)]

        return jax.tree.map(divide, batches)

    def compile_order(self, order: Callable[..., T]) -> Callable[..., T]:
        """Compile the function that makes the `divided` batches of an epoch."""
        if not self.devices:
            return jax.jit(order)
        return jax.jit(order, out_shardings=self._sharding(*([AXIS] if self.mapped else [])))

    def jit_steps(self, steps: Callable[..., T], of_data: Any, arguments: int) -> Callable[..., T]:
        """A jitted function of so many arguments: a state, metrics, data, batches, and what is alike on all devices.

        It takes the memory of state and metrics over. Each device runs it, on its part of the batches and of data that
        are `spread`: `of_data` are their partition specs.
        """
        if self.mapped:
            axes = tuple(0 if i == 3 else None for i in range(arguments))
            return jax.pmap(steps, AXIS, in_axes=axes, out_axes=None, devices=self.devices, donate_argnums=(0, 1))
        if self.devices:
            whole = PartitionSpec()
            specs = (whole, whole, of_data, PartitionSpec(None, AXIS), *[whole] * (arguments - 4))
            steps = jax.shard_map(steps, mesh=self._mesh, in_specs=specs, out_specs=whole, check_vma=False)
        everywhere = self._sharding() if self.devices else None
        return jax.jit(steps, out_shardings=everywhere, donate_argnums=(0, 1))

    def compile_steps(self, jitted: Callable[..., T], *arguments: Any) -> Callable[..., T]:
        """Compile what `jit_steps` made. The arguments are those of a call that does no step."""
        if self.mapped:
            # What pmap compiles ahead of time can't take the arrays of one process of many: so, no step of it.
            jitted(*jax.tree.map(jnp.copy, arguments[:2]), *arguments[2:])
            return jitted
        return jitted.lower(*arguments).compile()  # type: ignore[attr-defined]

    @cached_property
    def _mesh(self) -> Mesh:
        return jax.make_mesh((len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)

    def _put(self, tree: T, sharding: NamedSharding) -> T:
        if sharding.is_fully_addressable:
            return jax.device_put(tree, sharding)

        def from_each_process(leaf: Any) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

        return jax.tree.map(from_each_process, tree)

    def _sharding(self, *axes: str | None) -> NamedSharding:
        # pmap takes arrays of this process only, and gives such back.
        return NamedSharding(self._mesh.local_mesh if self.mapped else self._mesh, PartitionSpec(*axes))


ONE_DEVICE = Layout()


@dataclasses.dataclass(frozen=True)
class Members:
    """Devices of this process over which whole models are spread, as many on each."""

    devices: tuple[jax.Device, ...] = ()
    """None: the default device."""
    in_turn: bool = False
    """A device computes its models one after another in place of by `vmap`: for convolutions on a CPU, where XLA
    multiplies stacks of matrices slowly."""

    def padding(self, number: int) -> int:
        """How many models more it takes to have as many on every device."""
        return -number % max(1, len(self.devices))

    def over_members(self, function: Callable[..., T], axes: tuple[Any, ...]) -> Callable[..., T]:
        """`vmap` over the first axis, or none, of each argument or of parts of it; each device computes its models."""
        mapped = jax.vmap(sequential_vmap(function) if self.in_turn else function, axes)
        if not self.devices:
            return mapped
        specs = jax.tree.map(
            lambda axis: PartitionSpec() if axis is None else self._spec, axes, is_leaf=lambda axis: axis is None
        )
        return jax.shard_map(mapped, mesh=self._mesh, in_specs=specs, out_specs=self._spec, check_vma=False)

    def place(self, tree: T) -> T:
        """Spread arrays that have models along their first axis."""
        return jax.device_put(tree, NamedSharding(self._mesh, self._spec)) if self.devices else tree

    def everywhere(self, tree: T) -> T:
        """Put the same arrays on each device."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()) if self.devices else None)

    def local(self, tree: T) -> T:
        """Gather on the first device what was spread."""
        return jax.device_put(tree, self.devices[0]) if self.devices else tree

    _spec = PartitionSpec("member")

    @cached_property
    def _mesh(self) -> Mesh:
        return jax.make_mesh((len(self.devices),), ("member",), axis_types=(AxisType.Auto,), devices=self.devices)


def choose_layout(parallel: str) -> Layout:
    """The layout for `Settings.parallel`.

    "auto" takes all devices there are, but one of several that a CPU is divided into: its cores work together anyway.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    divided_cpu = _is_cpu(devices) and jax.process_count() == 1
    if parallel == "pmap":
        return Layout(tuple(devices), mapped=True)
    return ONE_DEVICE if len(devices) == 1 or (parallel == "auto" and divided_cpu) else Layout(tuple(devices))


def choose_members(parallel: str, number: int, in_turn: bool) -> Members:
    """The devices for so many models trained together: all of this process, but as in `choose_layout` for "auto"."""
    devices = jax.local_devices()[:number]
    one = len(devices) == 1 or (parallel == "auto" and _is_cpu(devices))
    return Members(() if one else tuple(devices), in_turn)


def from_first_process(value: float) -> float:
    """The value that the first of all processes has; each of them has to ask. Without others, the value itself."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    # In two halves, as arrays have 32 bits here.
    high = np.float32(value)
    halves = multihost_utils.broadcast_one_to_all(np.array([high, np.float32(value - float(high))]))
    return float(halves[0]) + float(halves[1])


def array_from_first_process(values: Any) -> Any:
    """An array that the first of all processes has; each of them has to ask. Without others, the array itself."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def agreed(value: int) -> int:
    """The largest of the values that the processes have; each of them has to ask."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def _is_cpu(devices: Sequence[jax.Device]) -> bool:
    return devices[0].platform == "cpu"


def shared(tree: T) -> T:
    """Arrays of this process, the same in every one, as arrays of all of them: what orbax saves then. No copy."""
    if jax.process_count() == 1:
        return tree
    own, sharding = jax.local_devices()[0], shared_sharding()

    def share(leaf: Any) -> jax.Array:
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, [jax.device_put(leaf, own)])

    return jax.tree.map(share, tree)


def shared_sharding() -> jax.sharding.Sharding:
    """Of `shared` arrays: on the first device of each process."""
    if jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    first = {device.process_index: device for device in sorted(jax.devices(), key=lambda device: -device.id)}
    return NamedSharding(Mesh(np.array([first[i] for i in sorted(first)]), ("process",)), PartitionSpec())


def unshared(tree: T) -> T:
    """The way back: arrays of this process."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
