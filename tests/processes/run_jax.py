"""Evaluate the JAX recipes on a mesh: ``run_jax.py FOLDER RANK [COORDINATOR]``.

On four virtual devices of one process or, with the address of a coordinator, on one device of each
of two processes. Besides losses and gradients it writes which collectives the programs have.
"""

import pickle
import re
import sys
from pathlib import Path

import in_jax
import jax

from _support.split import mixed, mixing

KINDS = "all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter"
COLLECTIVE = rf"= (.*?) ({KINDS})(?:-start)?\("  # the shapes of its results, and its kind


def unchecked(loss, apply, mesh, params, spikes, target, options):
    """Return the loss and its gradient, differentiated inside of an unchecked `shard_map`."""

    def local(params, spikes, target, options):
        def share(params):
            total, weight = loss.sum_and_weight(apply(params, spikes), target, **options)
            return total / in_jax.divisor(loss, jax.lax.psum(weight, "batch"))

        return jax.lax.psum(jax.value_and_grad(share)(params), "batch")

    specs = (jax.P(), jax.P("batch"), jax.P("batch"), in_jax.specs(options))
    out_specs = (jax.P(), jax.P())
    function = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)
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
    by_sample, whole = (jax.NamedSharding(mesh, spec) for spec in (jax.P("batch"), jax.P()))
    functions = {
        "sharded": in_jax.whole,
        "outside": in_jax.gradient_outside,
        "inside": in_jax.gradient_inside,
        "unchecked": jax.jit(unchecked, static_argnums=(0, 1, 2)),
        "sparsity": in_jax.sparsity_over_devices,
    }
    for recipe, name, batch in batches:
        params = jax.device_put(mixing(batch.spikes.shape[1]), whole)
        spikes, target = jax.device_put((batch.spikes, batch.target), by_sample)
        options = {
            name: jax.device_put(x, whole if name == "weight" else by_sample)
            for name, x in batch.options.items()
        }
        arrays = [params, spikes, *([] if target is None else [target]), options]
        static = [batch.loss, mixed, *([] if recipe == "sharded" else [mesh])]
        yield recipe, name, evaluate(functions[recipe], *static, *arrays)


def over_processes(batches, rank):
    """Yield the results of two processes."""
    mesh = jax.make_mesh((2,), ("batch",))
    for recipe, name, batch in batches:
        params = jax.device_put(mixing(batch.spikes.shape[1]), jax.NamedSharding(mesh, jax.P()))
        part = batch.part(slice(4 * rank, 4 * rank + 4))
        weight = part.options.pop("weight", None)
        arrays = in_jax.from_processes(mesh, (part.spikes, part.target, part.options))
        arrays[-1]["weight"] = weight
        yield recipe, name, in_jax.whole(batch.loss, mixed, params, *arrays)


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
