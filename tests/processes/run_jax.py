"""Evaluate the JAX recipes on four devices of a process: ``run_jax.py FOLDER RANK [COORDINATOR]``.

With the address of a coordinator, it is on one device of each of two processes.
"""

import functools
import pickle
import re
import sys
from pathlib import Path

import in_jax
import jax

from _support.split import mixed, mixing

KINDS = "all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter"
COLLECTIVE = rf"= (.*?) ({KINDS})(?:-start)?\("  # the shapes of its results, and its kind


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.value_and_grad, argnums=2)
def whole(loss, apply, params, spikes, target, options):
    """Return the loss and its gradient, for arrays on a mesh."""
    return loss(apply(params, spikes), target, **options)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def gradient_inside(loss, apply, mesh, params, spikes, target, options):
    """Return the loss and its gradient, with differentiation inside of `shard_map`."""

    def local(params, spikes, target, options):
        def share(params):
            total, weight = loss.sum_and_weight(apply(params, spikes), target, **options)
            return total / in_jax.divisor(loss, jax.lax.psum(weight, "batch"))

        value, gradient = jax.value_and_grad(share)(params)  # JAX adds up the gradients
        return jax.lax.psum(value, "batch"), gradient

    specs = (jax.P(), jax.P("batch"), jax.P("batch"), in_jax.specs(options))
    function = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P())
    return function(params, spikes, target, options)


def evaluate(compiled, *arguments):
    """Return the loss and its gradient, and the collectives of the compiled program."""
    program = compiled.lower(*arguments).compile()
    value, gradient = program(*(x for x in arguments if isinstance(x, jax.Array | dict)))
    found = re.findall(COLLECTIVE, program.as_text())
    return value, gradient, [f"{kind} {shape}" for shape, kind in found]


def on_devices(batches):
    """Yield the results of four devices."""
    mesh = jax.make_mesh((4,), ("batch",))
    by_sample, replicated = (jax.NamedSharding(mesh, spec) for spec in (jax.P("batch"), jax.P()))
    for recipe, name, batch in batches:
        params = jax.device_put(mixing(batch.spikes.shape[1]), replicated)
        function, _, variant = recipe.partition("-")
        spikes = jax.device_put(batch.spikes, by_sample)
        target = jax.device_put(batch.target, replicated if variant == "replicated" else by_sample)
        options = {
            name: jax.device_put(x, replicated if name == "weight" else by_sample)
            for name, x in batch.options.items()
        }
        arrays = [params, spikes, *([] if target is None else [target]), options]
        static = [batch.loss, mixed, *([] if function == "whole" else [mesh])]
        compiled = getattr(in_jax, function, None) or globals()[function]
        yield recipe, name, evaluate(compiled, *static, *arrays)


def over_processes(batches, rank):
    """Yield the results of two processes."""
    mesh = jax.make_mesh((2,), ("batch",))
    for recipe, name, batch in batches:
        params = jax.device_put(mixing(batch.spikes.shape[1]), jax.NamedSharding(mesh, jax.P()))
        part = batch.part(slice(4 * rank, 4 * rank + 4))
        weight = part.options.pop("weight", None)
        arrays = in_jax.from_processes(mesh, (part.spikes, part.target, part.options))
        arrays[-1]["weight"] = weight
        yield recipe, name, whole(batch.loss, mixed, params, *arrays)


def main(rank: int, folder: Path, coordinator: str | None = None) -> None:
    if coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, num_processes=2, process_id=rank)
    batches = pickle.loads((folder / "batches.pickle").read_bytes())
    results = over_processes(batches, rank) if coordinator else on_devices(batches)
    found = {}
    for recipe, name, (value, gradient, *collectives) in results:
        found[recipe, name] = jax.device_get((value, gradient)), *collectives
    (folder / f"results-{rank}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[2]), Path(sys.argv[1]), *sys.argv[3:])
