"""`compare_runs`, against a plain loop over the entries, and on networks with a planted fault."""

import itertools
import re

import numpy as np
import pytest

from spikeloss_xp.testing import compare_runs

STEPS, BATCH, SIZES = 40, 16, (30, 40, 40, 10)
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.random((STEPS, BATCH, SIZES[0])) < 0.15
WEIGHTS = [RANDOM.normal(0, 0.35, pair) for pair in itertools.pairwise(SIZES)]


def layer_of(currents, *, decay, gain, bias, threshold, hard, dropped, potential):
    """Return the spikes and the potentials of a layer, and its last potentials."""
    spikes, potentials = [], []
    for step, current in enumerate(currents):
        if step == dropped:
            potential = 0 * potential
        potential = (decay * potential + gain * current + bias).astype(currents.dtype)
        potentials.append(potential)
        spikes.append((potential > threshold).astype(currents.dtype))
        kept = potential * (1 - spikes[-1]) if hard else potential - threshold * spikes[-1]
        potential = kept.astype(currents.dtype)
    return np.stack(spikes), np.stack(potentials), potential


def run(inputs=INPUTS, weights=WEIGHTS, dtype=np.float64, states=(0.0,) * 3, **options):
    """Return the spikes and the potentials of each layer, and the last potentials."""
    defaults = {"decay": 0.9, "gain": 1, "bias": 0, "threshold": 1, "hard": False, "dropped": None}
    layers, spikes = [], inputs.astype(dtype)
    for weight, state in zip(weights, states, strict=True):
        currents = spikes @ weight.astype(dtype)
        layers.append(layer_of(currents, potential=state, **defaults | options))
        spikes = layers[-1][0]
    spikes, potentials, states = zip(*layers, strict=True)
    names = [f"layer{i}" for i in range(len(layers))]
    return (
        dict(zip(names, spikes, strict=False)),
        dict(zip(names, potentials, strict=False)),
        states,
    )


def changed(layer, change):
    """Return the weights, one of which is changed."""
    return [change(w.copy()) if i == layer else w for i, w in enumerate(WEIGHTS)]


def one_larger(weight):
    weight[3, 5] += 0.3
    return weight


FAULTS = {  # the options of a run, and the hint that is right
    "reset": ({"hard": True}, "different resets: in layer0"),
    "decay": ({"decay": 0.9003}, None),
    "weight": ({"weights": changed(0, one_larger)}, None),
    "dropped state": ({"dropped": 25}, None),
    "shifted input": (
        {"inputs": np.concatenate([0 * INPUTS[:1], INPUTS[:-1]])},
        "a shift: from layer0 on, the second run is one step later",
    ),
    "transposed": ({"weights": changed(1, np.transpose)}, None),
    "dt": ({"decay": 0.8}, None),
    "r": ({"gain": 1.1}, None),
    "threshold": ({"threshold": 1.05}, None),
    "bias": ({"bias": 0.02}, None),
    "float16": ({"dtype": np.float16}, None),
    "swapped classes": ({"weights": changed(2, lambda w: w[:, [1, 0, *range(2, 10)]])}, None),
}


def in_a_loop(first, second):
    """Return the place of the first difference, and the number of differences in each layer."""
    places = {name: [] for name in first}
    for name, x in first.items():
        for index in np.ndindex(x.shape):
            if x[index] != second[name][index]:
                places[name].append((index[0], name, index[1], index[2:]))
    order = [*first]
    step, name, sample, neuron = min(
        itertools.chain(*places.values()), key=lambda x: (x[0], order.index(x[1]), *x[2:])
    )
    return (name, step, sample, neuron), [len(x) for x in places.values()]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_where_a_loop_finds_it(name):
    options, hint = FAULTS[name]
    first, second = run()[0], run(**options)[0]
    result = compare_runs(first, second, time_axis=0)
    place, numbers = in_a_loop(first, second)
    assert not result.agrees
    assert result.first == place
    assert [row.differ for row in result.rows] == numbers
    assert [row.entries for row in result.rows] == [x.size for x in first.values()]
    sums = [(first[n].sum(), second[n].sum()) for n in first]
    assert [row.spikes for row in result.rows] == sums
    assert [x.partition("consistent with ")[2] for x in result.hints] == [
        f"{hint}{', no neuron differs before its first spike' if name == 'reset' else ''}."
    ] * bool(hint)


def test_fault_in_the_reset_of_a_later_layer_is_named():
    first, hard = run()[0], run(hard=True)[0]
    currents = first["layer0"] @ WEIGHTS[1]
    options = {"decay": 0.9, "gain": 1, "bias": 0, "threshold": 1, "dropped": None, "hard": True}
    second = first | {"layer1": layer_of(currents, potential=0.0, **options)[0]}
    second["layer2"] = hard["layer2"]
    (hint,) = compare_runs(first, second, time_axis=0).hints
    assert "different resets: in layer1" in hint


def test_hint_at_a_shift_needs_a_shift_of_all_layers_that_differ():
    first, late = run()[0], run(**FAULTS["shifted input"][0])[0]
    assert compare_runs(first, late, time_axis=0).hints
    other = late | {"layer2": 1 - late["layer2"]}
    assert not any("a shift" in hint for hint in compare_runs(first, other, time_axis=0).hints)
    assert repr(compare_runs(first, first, time_axis=0)).endswith("The runs agree.")


def test_hint_at_the_reset_needs_trains_that_agree_up_to_their_first_spike():
    spikes = run()[0]["layer0"]
    spikes[0] = 0
    first_spikes = (np.cumsum(spikes, axis=0) == 1) * spikes
    at_step_0 = spikes.copy()
    at_step_0[0] = 1 - spikes[0]
    for second in (spikes - first_spikes, at_step_0):
        assert not compare_runs({"layer0": spikes}, {"layer0": second}, time_axis=0).hints


def test_equal_runs_agree():
    """In the first run, the entries are not exact, as with a surrogate gradient."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        spikes = random.random((12, 3, 5)) < 0.3
        smooth = random.random(spikes.shape, np.float32)
        numbers = random.normal(size=spikes.shape)
        first = {"hidden": spikes + smooth - smooth, "potential": numbers.astype(np.float32)}
        second = {"hidden": spikes.swapaxes(0, 1), "potential": numbers.swapaxes(0, 1)}
        assert seed > 0 or (first["hidden"] != spikes).any()
        result = compare_runs(first, second, time_axis=(0, 1))
        assert result.agrees, seed
        assert result.first is result.batch is None
        assert result.hints == ()


def test_arrays_of_any_library_and_layout_are_compared(backend):
    first, second = run()[0], run(decay=0.9003)[0]
    expected = compare_runs(first, second, time_axis=0)
    moved = {f"fc.{name}": backend.asarray(np.moveaxis(x, 0, -1)) for name, x in second.items()}
    assert repr(compare_runs(first, moved, time_axis=(0, -1))) == repr(expected)
    images = (
        {n: x.reshape(STEPS, BATCH, -1, 5) for n, x in each.items()} for each in (first, second)
    )
    place = compare_runs(*images, time_axis=0).first
    (neuron,) = expected.first.neuron
    assert place == expected.first._replace(neuron=(neuron // 5, neuron % 5))


def test_first_layer_comes_first_within_a_step():
    first = {name: np.zeros((5, 2, 3)) for name in ("a", "b", "c")}
    second = {name: x.copy() for name, x in first.items()}
    second["a"][4], second["b"][2, 1, 2], second["c"][2, 0, 1] = 1, 1, 1
    result = compare_runs(first, second, time_axis=0)
    assert result.first == ("b", 2, 1, (2,))
    assert [row.first[1:3] for row in result.rows] == [(4, 0), (2, 1), (2, 0)]


def test_gradients_are_compared_with_the_tolerance_of_their_dtype():
    weight = np.random.default_rng(0).normal(size=(20, 30))
    for dtype, rounding in (("float64", 2e-16), ("float32", 1e-7), ("float16", 1e-3)):
        largest = abs(weight).max()
        for roundings, agrees in ((50, True), (200, False)):
            other = weight.astype(dtype).astype(float)
            other[3, 4] += roundings * rounding * largest
            both = {"w": weight.astype(dtype)}, {"w": other}
            result = compare_runs(*both, time_axis=None)
            assert result.agrees == agrees
            assert result.first == (None if agrees else ("w", None, None, (3, 4)))
            assert result.rows[0].spikes is None


def test_small_gradients_and_fractions_of_spikes_are_not_rounded():
    spikes = np.ones((5, 2, 3))
    assert not compare_runs({"w": 1e-3 * spikes}, {"w": 2e-3 * spikes}, time_axis=None).agrees
    assert not compare_runs({"s": spikes}, {"s": 1.3 * spikes}, time_axis=0).agrees


def test_later_explosion_does_not_hide_the_first_difference():
    first = np.random.default_rng(0).normal(size=(9, 2, 3))
    second = first.copy()
    second[4, 1, 2] += 0.01
    second[6:] *= 1e30
    for pair in ((first, second), (second, first)):
        found = compare_runs(*({"potential": x} for x in pair), time_axis=0)
        assert found.first == ("potential", 4, 1, (2,))


def test_arrays_without_a_time_axis_come_after_all_steps():
    spikes, weight, bias = np.zeros((9, 2, 3)), np.full((4, 3), 0.5), np.asarray(0.5)
    first = {"hidden": spikes, "bias": bias, "weight": weight, "output": spikes}
    second = {"hidden": spikes, "bias": 2 * bias, "weight": 2 * weight, "output": spikes.copy()}
    second["output"][8, 1] = 1
    result = compare_runs(first, second, time_axis=0)
    assert result.first == ("output", 8, 1, (0,))
    assert result.rows[2].first == ("weight", None, None, (0, 0))
    second["output"] = spikes
    result = compare_runs(first, second, time_axis=0, potentials=first, thresholds=1)
    assert result.first == ("bias", None, None, ())
    assert not result.hints


def test_nan_in_one_run_is_a_difference():
    spikes = np.zeros((5, 2, 3))
    spikes[3, 1, 2], spikes[4, 0] = np.nan, np.inf
    clean = {"hidden": np.nan_to_num(spikes, posinf=np.inf)}
    assert compare_runs({"hidden": spikes}, {"hidden": spikes}, time_axis=0).agrees
    for scale in (1, 0.3):  # spikes, and other numbers
        pair = [{"hidden": scale * (x["hidden"] + 1)} for x in ({"hidden": spikes}, clean)]
        for runs in itertools.permutations(pair):
            assert compare_runs(*runs, time_axis=0).first == ("hidden", 3, 1, (2,))


def test_state_that_was_kept_is_named():
    batches = [INPUTS, INPUTS[::-1], INPUTS[:, ::-1]]
    fresh, kept, states = [], [], (0.0,) * 3
    for inputs in batches:
        fresh.append(run(inputs)[0])
        spikes, _, states = run(inputs, states=states)
        kept.append(spikes)
    result = compare_runs(fresh, kept, time_axis=0)
    assert (result.batch, result.first.step) == (1, 0)
    (hint,) = result.hints
    assert "a state that one run kept from the previous batch" in hint
    assert "batch 1, step 0" in repr(result)
    assert result.rows[0].entries == 3 * fresh[0]["layer0"].size
    assert result.rows[0].spikes[0] == sum(x["layer0"].sum() for x in fresh)
    for other in ([run(batches[0])[0], run(batches[1], decay=0.8)[0]], [run(batches[1])[0]] * 2):
        assert not compare_runs(fresh[:2], other, time_axis=0).hints


@pytest.mark.parametrize(
    ("distance", "says"),
    [(1e-6, "Rounding explains this"), (0.01, "Rounding does not"), (0, "at the threshold")],
)
def test_distance_from_the_threshold_is_told(distance, says):
    first, potentials, _ = run()
    at = 5, 3, 4
    spikes, below = first["layer1"].copy(), potentials["layer1"].astype(np.float32)
    spikes[at], below[at] = 1 - spikes[at], 2 - distance
    above = np.where(below == below[at], np.float32(2 + distance), below)
    second = first | {"layer1": spikes}
    of_runs = {"layer1": below}, {"layer1": np.moveaxis(above, 0, -1)}
    moved = {name: np.moveaxis(x, 0, -1) for name, x in second.items()}
    for thresholds in (2, {"layer1": np.full(40, 2.0)}):
        options = {"potentials": of_runs, "thresholds": thresholds, "time_axis": (0, 2)}
        result = compare_runs(first, moved, **options)
        assert result.first == ("layer1", 5, 3, (4,))
        told, verdict = result.hints
        assert says in verdict
        numbers = re.findall(r"(\S+) in the (?:first|second) run", told)
        assert [float(x) for x in numbers] == pytest.approx([-distance, distance], rel=0.1)
    options |= {"potentials": of_runs[0]}
    assert "second" not in compare_runs(first, moved, **options).hints[0]
    options |= {"potentials": {"layer0": below}}
    assert not compare_runs(first, moved, **options).hints


SPIKES = np.zeros((5, 2, 3))
ONE = {"a": SPIKES, "b": SPIKES}


@pytest.mark.parametrize(
    ("second", "options", "error", "message"),
    [
        ({"a": SPIKES}, {}, ValueError, r"'b' has no counterpart: the first run has \['a', 'b'\]"),
        ({**ONE, "c": SPIKES}, {}, ValueError, "'c' has no counterpart"),
        ({"b": SPIKES, "c": SPIKES}, {}, ValueError, "'a', 'c' has no counterpart"),
        (ONE, {"names": {"x": "b"}}, ValueError, "'x' has no counterpart"),
        ({**ONE, "b": SPIKES[:4]}, {}, ValueError, r"b has shape \(5, 2, 3\) .* \(4, 2, 3\)"),
        (ONE, {"time_axis": (0, 1)}, ValueError, r"a has shape .* the time axes \(0, 1\)"),
        (ONE, {"time_axis": 3}, ValueError, "a has shape .* the time axes"),
        (ONE, {"time_axis": "0"}, TypeError, "time_axis must be an integer"),
        ([ONE, ONE], {}, ValueError, "first has 1 batches, but second has 2"),
        ({**ONE, "b": SPIKES.tolist()}, {}, TypeError, "b must be an array"),
        (SPIKES, {}, TypeError, "second must be a non-empty mapping.*got ndarray"),
        ([], {}, TypeError, "second must be a non-empty mapping"),
        ({}, {}, TypeError, "second must be a non-empty mapping"),
        (ONE, {"potentials": ONE}, ValueError, "potentials and thresholds must be passed together"),
        (ONE, {"thresholds": 1}, ValueError, "potentials and thresholds must be passed together"),
        (ONE, {"potentials": [ONE, ONE], "thresholds": 1}, ValueError, "must have 1 batches"),
        (ONE, {"time_axis": (0, 1, 1)}, ValueError, "one axis for each of the two runs"),
        ({**ONE, "b": SPIKES + 1j}, {}, TypeError, "b must hold real numbers"),
        (ONE, {"potentials": (None, ONE), "thresholds": 1}, TypeError, "potentials must be a non-"),
        (
            {"a": SPIKES + 1, "b": SPIKES},
            {"potentials": ONE, "thresholds": {"b": 1}},
            ValueError,
            "thresholds has no entry for a",
        ),
        (
            {"a": SPIKES + 1, "b": SPIKES},
            {"potentials": {"a": SPIKES[1:]}, "thresholds": 1},
            ValueError,
            "potentials of a must have the same shape",
        ),
        (
            {"a": SPIKES + 1, "b": SPIKES},
            {"potentials": {"a": SPIKES}, "thresholds": [1, 2]},
            ValueError,
            r"thresholds of a .* shape \(3,\)",
        ),
    ],
)
def test_invalid_arguments_raise(second, options, error, message):
    with pytest.raises(error, match=message):
        compare_runs(ONE, second, **{"time_axis": 0, **options})


def test_batches_with_different_layers_raise():
    batches = [{"a": SPIKES}, {"b": SPIKES}]
    with pytest.raises(ValueError, match=r"batch 1 has layers .*'b'.* but batch 0 .*'a'"):
        compare_runs(batches, batches, time_axis=0)


def test_numbers_beyond_the_integers_of_float64_are_no_spikes():
    (row,) = compare_runs({"a": SPIKES + 1e308}, {"a": SPIKES + 1e308}, time_axis=0).rows
    assert row.spikes is None


def test_layers_are_matched_by_name_before_their_order():
    other = {"a": SPIKES, "b": SPIKES + 1}
    in_reverse = {"b": SPIKES + 1, "a": SPIKES}
    renamed = {"lif1": SPIKES, "lif2": SPIKES + 1}
    named = {"x": SPIKES + 1, "a": SPIKES}
    for second, names in ((in_reverse, None), (renamed, None), (named, {"b": "x"})):
        assert compare_runs(other, second, time_axis=0, names=names).agrees


def test_recordings_are_compared():
    pytest.importorskip("torch")
    from _support.networks import network_of, recorded

    seen, _ = recorded(network_of(20, 30, 3))
    other, _ = recorded(network_of(20, 30, 3, gain=3.1))
    assert compare_runs(seen, seen.spikes, time_axis=0).agrees
    assert compare_runs([seen], [other], time_axis=0).first.layer == "1"
