"""JAX recipes for batches that are split, as shown in docs/processes.md."""

import functools

import jax
import jax.numpy as jnp


def divisor(loss, weight):
    """Return the divisor of the total sum, given the weight of the whole batch."""
    if loss.reduction == "sum":
        return 1
    # the loss is 0 if everything is masked
    return jnp.where(weight > 0, weight, jnp.inf)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.value_and_grad, argnums=2, has_aux=True)
def sums(loss, apply, params, spikes, target, options):
    """Return the sum and weight of a micro-batch, and the gradient of the sum."""
    return loss.sum_and_weight(apply(params, spikes), target, **options)


def accumulate(loss, apply, params, micro_batches):
    """Return the loss of all micro-batches, and its gradient."""
    parts = [
        sums(loss, apply, params, *micro_batch) for micro_batch in micro_batches
    ]
    (total, weight), gradient = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    by = divisor(loss, weight)
    return total / by, jax.tree.map(lambda x: x / by, gradient)


def specs(options):
    """Return the sharding of options: along the batch, except class weights."""
    return {
        name: jax.P() if name == "weight" else jax.P("batch") for name in options
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
@functools.partial(jax.value_and_grad, argnums=3)
def gradient_outside(loss, apply, mesh, params, spikes, target, options):
    """Return loss and gradient, with differentiation outside of `shard_map`."""

    def local(params, spikes, target, options):
        total, weight = loss.sum_and_weight(apply(params, spikes), target, **options)
        weight = jax.lax.psum(weight, "batch")
        return jax.lax.psum(total, "batch") / divisor(loss, weight)

    in_specs = (jax.P(), jax.P("batch"), jax.P("batch"), specs(options))
    function = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=jax.P())
    return function(params, spikes, target, options)


def from_processes(mesh, arrays):
    """Return global arrays of the whole batch, given the samples of this process."""
    sharding = jax.NamedSharding(mesh, jax.P("batch"))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), arrays
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def sparsity_over_devices(sparsity, apply, mesh, params, spikes, options):
    """Return the term of the whole batch, and its gradient."""

    def local(params, spikes, options):
        def term(params):
            layer = apply(params, spikes)
            own = jnp.stack(
                sparsity.events_and_entries(jax.lax.stop_gradient(layer), **options)
            )
            return sparsity(
                layer, others=jax.lax.psum(own, "batch") - own, **options
            )

        value, gradient = jax.value_and_grad(term)(params)
        # the same value on each device
        return jax.lax.pmean(value, "batch"), gradient

    in_specs = (jax.P(), jax.P("batch"), jax.P("batch"))
    function = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=jax.P())
    return function(params, spikes, options)
