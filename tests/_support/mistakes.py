"""Invalid options and arguments, with the error that each of them must raise.

Each line of the texts below has the code of a mistake, and its error: the kind and parts of the
message. ``{a|b}`` in the code stands for two mistakes, one with ``a`` and one with ``b``; ``{}`` in
the message stands for the same one of them, or ``{0}`` and ``{1}`` if there are two such choices. A
part with ``$`` at its end is the end of the message. The code uses the names of NumPy, of the
library and of `NAMES`; ``asarray`` makes an array of the library under test, and ``spikes`` is one.
"""

import builtins
import functools
import itertools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import spikeloss_xp as sx

SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(3, 4, 5))
TIME_FIRST = np.moveaxis(SPIKES, -1, 0)
MULTI_HOT = np.asarray([[True, False, True, False], [False, False, False, False], [True] * 4])
LABEL = [1, 0, 3]


def rate(true_rate: Any = 1, false_rate: Any = 0, **options: Any) -> sx.SpikeRate:
    return sx.SpikeRate(true_rate, false_rate, **options)


class Learned(float):
    """A number with a gradient, as that of a tensor of PyTorch."""

    requires_grad, dtype = True, float


def matrix(values: Any) -> np.matrix:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(values)


NAMES = {
    **vars(np),
    **vars(sx),
    **{"SPIKES": SPIKES, "label": LABEL, "multi_hot": MULTI_HOT},
    "masked": np.ma.masked_array,
    "learned": Learned(2.0),
    "matrix": matrix,
    "numbers": sx.SquaredError(time_axis=-1),
    "rate": rate,
    "entropy": functools.partial(sx.CrossEntropy, time_axis=-1),
    "latency": functools.partial(sx.SpikeLatency, time_axis=-1),
    "squared": functools.partial(sx.SquaredError, time_axis=-1),
    "moid": functools.partial(sx.SpikeMoid, theta=0),
    "composed": lambda **options: sx.losses.Composed(**{"read": min, "compare": max, **options}),
}


@dataclass(frozen=True)
class Mistake:
    """A mistake and the error that it raises."""

    code: str
    error: type[Exception]
    message_parts: tuple[str, ...]
    """Substrings of the message: the argument, the value that arrived, and the expected one."""

    def make(self, asarray: Callable[..., Any]) -> object:
        """Make the mistake, given a function that converts arrays."""
        arrays = {"spikes": asarray(SPIKES), "time_first": asarray(TIME_FIRST), "asarray": asarray}
        return eval(self.code, {**NAMES, **arrays})


def _mistakes(text: str) -> tuple[Mistake, ...]:
    found = []
    for line in text.strip().splitlines():
        code, raised = line.split(" -> ")
        choices = re.findall(r"\{(.+?)\}", code)
        code = re.sub(r"\{.+?\}", "{}", code)
        for chosen in itertools.product(*(choice.split("|") for choice in choices)):
            error, parts = raised.format(*chosen).split(": ", 1)
            parts = tuple(parts.split("; "))
            found.append(Mistake(code.format(*chosen), getattr(builtins, error), parts))
    return tuple(found)


OPTION_MISTAKES = _mistakes("""
{SpikeMax|SpikeTime|rate|SpikeMoid|squared|composed}(reduction={'average'|None}) -> \
ValueError: reduction; sum, mean, batchmean, none; {1}
rate(readout="first") -> ValueError: readout; rate, count, max, last; 'first'
SpikeMax(ignore_index={2147483648|-2147483649}) -> ValueError: ignore_index; 32 bits; {}
entropy(moving_window=3, readout={'max'|'latency'}) -> ValueError: readout; {}; moving_window; 3
{rate|SpikeMoid}(readout={'softmax_sum'|'latency'|'sqrt_count'}) -> \
ValueError: readout; {1}; CrossEntropy
SpikeTime(kernel=[1, 0.5], {time_constant|filter_order}=3) -> ValueError: kernel; {}; 3
SpikeTime(kernel=[1, 0.5], length=3) -> ValueError: length; kernel; 2; 3
SpikeTime(kernel=ones({()|(0,)|(1, 2)}).tolist()) -> \
ValueError: kernel; function of the lag; [length]; {}
SpikeTime(kernel=[1, nan]) -> ValueError: kernel; [1]; finite; nan
SpikeTime(kernel=lambda lag: nan, length=3) -> ValueError: kernel; (0); finite; nan
SpikeMoid(pos_weight={-0.5|inf|nan}) -> ValueError: pos_weight; {}
SpikeMoid(pos_weight=[1, {-0.5|inf|nan}]) -> ValueError: pos_weight; [1]; {}
moid(pos_weight=2, numerics="lava") -> ValueError: pos_weight; 2; numerics; lava
latency({true_time|false_time|tolerance}={-1|-0.5}) -> ValueError: {}; at least 0; {}
entropy(temperature={0|-1|nan}) -> ValueError: temperature; {}
entropy(label_smoothing={-0.1|1|1.5|nan}) -> ValueError: label_smoothing; {}
entropy(rates={0.5|(0.5,)|(0.02, 0.5)|(0.5, 0.5)|(0.5, 0.2, 0.1)}) -> ValueError: rates; two; {}
entropy(rates=(0.5, {-0.1|nan})) -> ValueError: rates[1]; {}
entropy(rates=(0.5, 0), readout={'max'|'last'|'latency'|'softmax_sum'}) -> ValueError: rates; \
count, sqrt_count; {}
entropy(rate_weight={-1|inf}) -> ValueError: rate_weight; {}
{CrossEntropy|SpikeLatency|Rate}() -> TypeError: time_axis
SpikeTime(kernel=lambda lag: 0.5**lag) -> ValueError: kernel; needs a length
{rate|SpikeMax|SpikeMoid|composed}(num_classes=0) -> ValueError: num_classes; at least 1; 0
{rate|SpikeMax|SpikeMoid}(moving_window={0|-3}) -> ValueError: moving_window; at least 1; {1}
SpikeMax({num_classes|ignore_index|time_axis}={1.5|'last'}) -> TypeError: {}; integer; {}
composed({ignore_index|time_axis}=1.5) -> TypeError: {}; integer; 1.5
SpikeTime(filter_order=1.5) -> TypeError: filter_order; integer; 1.5
rate({true_rate|false_rate}={-0.5|1.5|nan}, readout={'rate'|'count'}) -> ValueError: {}; {}
rate(true_rate=(0.5, 1.5), readout={'rate'|'count'}) -> ValueError: true_rate; [1]; 1.5
rate(false_rate=nan, readout="max") -> ValueError: false_rate; nan
SparsityEnforcer(max_rate=0.25, min_rate=0.5) -> ValueError: min_rate; max_rate; 0.5; 0.25
SparsityEnforcer(per="layer") -> ValueError: per; array, neuron; 'layer'
SpikeMax(mode="any") -> ValueError: mode; probability, softmax; 'any'
{SpikeMax|SpikeMoid}(numerics="new") -> ValueError: numerics; stable, lava; 'new'
SpikeTime({filter_order|length}=0) -> ValueError: {}; at least 1; 0
SpikeTime(length={2147483648|9223372036854775808|1180591620717411303424}) -> \
ValueError: length; at most 2147483647; got {}
SpikeMax({2147483648|9223372036854775808|1180591620717411303424}) -> \
ValueError: moving_window; at most 2147483647; got {}
SpikeTime(time_constant={0|-1|nan|inf}) -> ValueError: time_constant; {}
SpikeTime(time_constant={'5ms'|None}) -> TypeError: time_constant; must be a number; got {}
SpikeMax(moving_window={True|2.0}) -> TypeError: moving_window; integer; {}
SpikeMax(pseudo_count={0|-1}) -> ValueError: pseudo_count; above 0; {}
SpikeMoid(alpha={0|-1}) -> ValueError: alpha; above 0; {}
SpikeMoid(theta=nan) -> ValueError: theta; finite; nan
entropy(temperature=learned) -> TypeError: temperature must be a number; loss(input / temp
entropy(temperature=ones(2)) -> TypeError: temperature must be a number; got array([1., 1.])$
rate(true_rate=[learned, 0.5]) -> TypeError: true_rate[0] must be a number; the gradient
SparsityEnforcer({max_rate|min_rate|lam}=-1) -> ValueError: {} must be at least 0; got -1
SparsityEnforcer(scale=(-1,)) -> ValueError: scale[0] must be at least 0; got -1
SparsityEnforcer(power=3) -> ValueError: power must be 1 or 2; got 3
SparsityEnforcer(per="neuron", scale=(1, 2)) -> ValueError: per='array' or 'sample'; per='neuron'
composed({read|compare}=None) -> TypeError: {} must be a function; None
composed(per_step=1) -> TypeError: per_step; 1
HuberError(delta=0, time_axis=0) -> ValueError: delta must be above 0; got 0
{SpikeTime|SpikeMax|SpikeMoid|SparsityEnforcer|rate}(zeros({(2, 3)|(2, 3, 5)})) -> \
TypeError: got an array of shape {1}: make it first
CrossEntropy(weight=2) -> TypeError: CrossEntropy has no option weight; in the call, \
loss(input, target, weight=...)
SpikeMax(mask=2) -> TypeError: SpikeMax has no option mask; where=...
SpikeTime(tau=2) -> TypeError: SpikeTime has no option tau; time_constant=..., in steps
SpikeRate(window=2) -> TypeError: SpikeRate has no option window; moving_window=..., in steps
SparsityEnforcer(dim=2) -> TypeError: SparsityEnforcer has no option dim; time_axis=...
""")

ARRAY_MISTAKES = _mistakes("""
SpikeMax()(time_first, label) -> ValueError: target; (5,); (3,); time_axis
SpikeMax(2)(time_first, zeros((5, 3), int)) -> ValueError: target; (5, 3); (5,); CrossEntropy; \
time_axis
SpikeMax()(spikes, zeros((3, 5), int)) -> ValueError: target; (3, 5); (3,); moving_window
moid()(spikes, label) -> TypeError: target; multi-hot; int; class indices
SpikeMax()(spikes, multi_hot) -> TypeError: target; integers; bool; CrossEntropy
entropy()(spikes, multi_hot.astype({bool|int})) -> \
TypeError: target; one index of a class; {}; class probabilities are floats
numbers(spikes, label) -> TypeError: target; target readings; int
entropy()(spikes, ones((3, 4, 5))) -> ValueError: target; (3, 4, 5); (3, 4); moving_window
SpikeMax(num_classes=3)(spikes, [0, 1, 2]) -> ValueError: num_classes; 3; 4
rate((0.5, 0.5, 0.5))(spikes, label) -> ValueError: true_rate; 3; 4
moid(pos_weight=(2, 3))(spikes, multi_hot) -> ValueError: pos_weight; 2; 4
value_and_grad(rate(reduction="none"))(spikes, label) -> ValueError: (3, 4); got none
value_and_grad(rate(reduction="none"))(spikes, label, cotangent=asarray(ones((4, 3)))) -> \
ValueError: (3, 4); (4, 3)
value_and_grad(rate())(spikes, label, cotangent=asarray(ones((3, 4)))) -> ValueError: (); (3, 4)
SpikeMax()(asarray(SPIKES, "float32"), label, weight=full(4, 1e300)) -> \
ValueError: weight has a number of size 1e+300
SpikeTime()(asarray(SPIKES, "float32"), full((3, 4, 5), -1e300)) -> \
ValueError: target has a number of size 1e+300
SpikeMax()(spikes, {masked|matrix}(label)) -> TypeError: target must be an array; : pass
SpikeMax()(spikes, label, {where|lengths|weight}={masked|matrix}([5, 3, 1])) -> \
TypeError: {} must be an array; : pass
latency()(spikes, ones((3, 5))) -> ValueError: target; target times of shape (3, 4); (3, 5)
SpikeMax()(spikes, label, where=ones({(5, 3)|(4,)|()|(1,)|(3, 4)|(3, 1, 5)|(5, 4, 3)}, \
bool)) -> ValueError: where; {}; (3,); (3, 5); (3, 4, 5)
SpikeMax()(spikes, label, where=[1, 1, 0]) -> TypeError: where; bool; int
SpikeMax()(spikes, label, lengths=full({(2,)|()}, 5)) -> ValueError: lengths; {}; (3,)
SpikeMax()(spikes, label, lengths=[5.0, 4.0, 3.0]) -> TypeError: lengths; integers; float
rate()(spikes, label, weight=[True, False, True, True]) -> TypeError: weight; bool
SpikeTime()(spikes, ones((3, 4, 5), bool), weight=ones(4)) -> TypeError: weight; SpikeTime
{rate|SpikeMax|entropy}()(spikes, [0.0, 1.0, 2.0]) -> \
TypeError: integers, the index of a class; got; float
moid()(spikes, multi_hot.astype(int)) -> TypeError: multi-hot; if it is multi-hot, target != 0; int
SpikeMax()(spikes, ["a", "b", "c"]) -> TypeError: target must hold numbers; got list
SpikeMax()(spikes, None) -> TypeError: target must hold numbers; got NoneType
moid()(spikes, [[1.0, 0.0], [1.0]]) -> ValueError: target is not a rectangular sequence
SpikeTime()(spikes, zeros((3, 4, 5), complex)) -> TypeError: target must; complex
SpikeTime()(spikes, asarray(zeros({(4, 3, 5)|(3, 5, 4)|(5, 4, 3)|(60,)|(1, 4, 5)|(4, 5)}))) -> \
ValueError: target must; (3, 4, 5); got {}
{rate|SpikeMax}()(spikes, asarray(zeros({(4,)|(1,)|()|(3, 1)|(1, 3)|(3, 5)|(3, 4)}, int))) -> \
ValueError: target; (3,) ([batch]); got {1}
{rate|SpikeMax}(moving_window=3)(spikes, \
asarray(zeros({(5,)|(5, 3)|(3, 1)|(1, 5)|(15,)|(3, 4, 5)}, int))) -> \
ValueError: (3,) ([batch]) or (3, 5) (one at each step); got {1}
moid()(spikes, asarray(zeros({(4, 3)|(3,)|(12,)|(1, 4)|(3, 1)|(3, 4, 5)}))) -> \
ValueError: (3, 4) ([batch, class]); got {}
moid(3)(spikes, asarray(zeros({(4, 3)|(3, 5)|(3, 5, 4)|(4, 3, 5)|(3, 4, 1)}))) -> \
ValueError: (3, 4) ([batch, class]) or (3, 4, 5); got {}
moid(3, time_axis=1)(spikes, asarray(zeros((3, 5, 4)))) -> ValueError: (3, 5); (3, 4, 5); got
SpikeMax()(spikes, multi_hot.astype(int)) -> \
ValueError: (only CrossEntropy, when called, takes class probabilities, as floats)$
SpikeMax()(spikes, label, weight=ones(3)) -> ValueError: weight; got (3,) (to weigh samples; 'none'
SpikeMax()(spikes, label, weight=ones({(2,)|()})) -> ValueError: weight; (4,); got {}$
moid()(spikes[:, :1, :], asarray(zeros(3, int))) -> TypeError: target[:, None] != 0 is multi-hot
entropy()((spikes, spikes), label) -> TypeError: builtins.tuple: if a network; output[0]
SpikeMax()(spikes, label, weight=ones(5)) -> \
ValueError: as long as axis 2 of input, which is time: see time_axis
latency().confusion(spikes, ones((3, 4))) -> TypeError: target; integers; float
{entropy|latency}()(spikes, ones((4, 3))) -> \
ValueError: target; (3, 4); (4, 3) (its axes are in another order)
latency()(spikes, ones(3)) -> TypeError: target must hold integers
latency()(spikes, ones((3, 4), int)) -> TypeError: got; int; (target times are floats)
latency()(spikes, full((3, 4), {inf|nan})) -> ValueError: target must hold target times, finite
SpikeTime()(asarray(zeros(5)), zeros(5)) -> \
ValueError: input must have at least 2 axes, [batch, *space, time]; (5,)
{rate|SpikeMax|moid}()(asarray(zeros((2, 5))), zeros((2, 5))) -> \
ValueError: input must have at least 3 axes, [batch, class or *space, time]; (2, 5); \
a batch of one: loss(input[None], target[None])
rate()(asarray(zeros({(2, 3, 0)|(0, 3, 5)|(2, 0, 5)})), [0]) -> ValueError: no elements; {}
rate(time_axis={3|-4})(spikes, label) -> ValueError: time_axis={}; (3, 4, 5)
SparsityEnforcer()(asarray(zeros((2, 0)))) -> ValueError: no elements: got shape (2, 0)
SparsityEnforcer()([]) -> ValueError: at least one of them; got none
SparsityEnforcer()([spikes, spikes], others=(1.0, 2.0)) -> \
ValueError: others belong to one array: call the loss once for
SparsityEnforcer()(spikes, others=(1.0, 2.0, 3.0)) -> \
ValueError: others must be a pair, events and entries; got 3
SparsityEnforcer()(spikes, others=([1.0, 2.0], 3.0)) -> \
ValueError: others must hold events of shape () (a scalar); got (2,)
SparsityEnforcer(per="neuron")(spikes, others=(ones(4), [3.0])) -> \
ValueError: entries of shape (4,) ([neuron]); got
SparsityEnforcer(per="sample")(spikes, others=(1.0, 2.0)) -> ValueError: per='sample' has none
SparsityEnforcer().sum_and_weight(spikes) -> ValueError: per='array' has no sum over samples
SparsityEnforcer(scale=(1, 2))([spikes]) -> ValueError: a number for each array, 1; got
SparsityEnforcer(scale=(1,)).events_and_entries(spikes) -> ValueError: without a scale
SparsityEnforcer(scale=(1,)).value(spikes) -> ValueError: scale belongs to several arrays
SpikeMax(reduction="none").sum_and_weight(spikes, label) -> ValueError: reduction='none' has no sum
SpikeMax(1).{value|value_and_pullback|sum_and_weight|__call__}(spikes, label, lenghts=2) -> \
TypeError: lenghts
SpikeMax(1).{value|value_and_pullback|__call__}(spikes, label, context=2) -> TypeError: context
""")

VALUE_MISTAKES = _mistakes("""
moid()(spikes, asarray(where(multi_hot, {nan|1.5|-0.25}, 0))) -> \
ValueError: target; must hold multi-hot labels, between 0 and 1; {}
entropy()(spikes, asarray(full((3, 4), {-0.5|inf|nan}))) -> ValueError: target; \
finite and at least 0; {}
entropy(readout="sqrt_count")(asarray(where(arange(20).reshape(4, 5) > 14, nan, -0.2) * \
ones((3, 1, 1))), asarray(label)) -> ValueError: input; below 0; 'softmax_sum'; -1
numbers(spikes, 0.5) -> ValueError: target; one number for all; numpy.full((3, 4), x)
numbers(spikes[:1, ...], asarray(zeros(4))) -> ValueError: lacks the axis of the batch: target[None]
SquaredError(time_axis=0, moving_window=1)(spikes[:, :1, :], asarray(zeros((3, 5)))) -> \
ValueError: lacks the axis of the batch: target[:, None]
numbers(spikes, asarray(full((3, 4), nan))) -> ValueError: target; target readings, finite; nan
latency()(spikes, asarray(full((3, 4), -5.5))) -> ValueError: target; at least 0; -5.5
latency()(-asarray(where(arange(60).reshape(3, 4, 5) == 7, 0.25, 0)), asarray(label)) -> \
ValueError: input; below 0; -0.25
SpikeMax({None|2})(asarray(full((3, 4, 5), -0.3)), asarray(label)) -> \
ValueError: input; below 0; mode='probability'; CrossEntropy
SpikeMax()(spikes, label, lengths=asarray([1, {-1|6}, 5])) -> ValueError: lengths; 0; 5; {}
SpikeMax()(spikes, label, weight=asarray([1, {-0.5|inf|nan}, 1, 1.0])) -> ValueError: weight; {}
{rate|SpikeMax}()(spikes, {asarray|list}([4, 0, -1])) -> \
ValueError: target must be between 0 and 3; got values from -1 to 4
SpikeMax(2)(spikes, asarray([{-1|120}, 0, 0])) -> ValueError: target must be between 0 and 3; {}
""")
