"""A loss as a PyTorch module: in containers, copied, converted and in checkpoints."""

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from spikeloss_xp.torch import LossModule

SPIKES = torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]], [[0, 0, 0, 1], [1, 1, 0, 1]]])
LABEL = torch.tensor([0, 1])
WEIGHT = [1.0, 3.0]
LOSSES = (
    (sx.SpikeTime(time_axis=-1), (SPIKES.roll(1, -1),), None),
    (sx.SpikeRate(0.5, 0.0, reduction="mean", time_axis=-1), (LABEL,), WEIGHT),
    (sx.SpikeLatency(tolerance=0.5, time_axis=-1), (LABEL,), WEIGHT),
    (sx.SpikeMoid(reduction="batchmean", alpha=1, theta=0, time_axis=-1), (torch.eye(2),), WEIGHT),
    (sx.SparsityEnforcer(time_axis=-1), (), None),
)
LENGTHS = {"lengths": [4, 2]}


@pytest.mark.parametrize(("loss", "target", "weight"), LOSSES)
def test_module_and_its_copies_equal_the_loss_with_its_weight(loss, target, weight):
    module = LossModule(loss, weight=weight)
    options = LENGTHS if weight is None else {**LENGTHS, "weight": weight}
    for made in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert made.loss == loss
        assert made(SPIKES, *target, **LENGTHS) == loss(SPIKES, *target, **options)
    if target:
        expected = loss.sum_and_weight(SPIKES, *target, **options)
        assert module.sum_and_weight(SPIKES, *target, **LENGTHS) == expected


def test_weight_of_a_call_comes_first():
    loss = sx.SpikeMax(moving_window=2, time_axis=-1)
    module = LossModule(loss, weight=WEIGHT)
    assert module(SPIKES, LABEL, weight=[2.0, 1.0]) == loss(SPIKES, LABEL, weight=[2.0, 1.0])
    assert module(SPIKES, LABEL, weight=None) == module(SPIKES, LABEL)  # as wrappers do


def test_weight_is_a_buffer_and_the_loss_has_no_parameters():
    given = torch.tensor(WEIGHT)
    module = LossModule(sx.SpikeMax(time_axis=-1), weight=given)
    assert list(module.parameters()) == []
    assert module.to(torch.float64).weight.dtype == torch.float64
    assert given.dtype == torch.float32
    assert (
        LossModule(sx.SpikeMax(time_axis=-1), weight=given.double()).weight.dtype == torch.float64
    )
    assert module.to("meta").weight.device.type == "meta"
    assert LossModule(sx.SpikeMax(time_axis=-1)).state_dict() == {}
    assert "class weights" not in repr(LossModule(sx.SpikeMax(time_axis=-1)))


def test_weight_and_loss_are_restored_from_a_checkpoint():
    """Plain tensors of the state, and a loss object that the reader allows."""
    file, module = (
        io.BytesIO(),
        LossModule(sx.SpikeMax(time_axis=-1), weight=[0.0, 0.0]),
    )
    state = LossModule(sx.SpikeMax(time_axis=-1), weight=WEIGHT).state_dict()
    torch.save({"state": state, "loss": sx.SpikeMax(moving_window=3, time_axis=-1)}, file)
    file.seek(0)
    with torch.serialization.safe_globals([sx.SpikeMax]):
        found = torch.load(file, weights_only=True)
    module.load_state_dict(found["state"])
    assert module.weight.tolist() == WEIGHT
    assert found["loss"] == sx.SpikeMax(moving_window=3, time_axis=-1)


def test_sequential_prints_the_loss_and_calls_one_without_a_target():
    sparsity = sx.SparsityEnforcer(0.25, time_axis=-1)
    model = torch.nn.Sequential(torch.nn.ReLU(), LossModule(sparsity))
    assert model(SPIKES - 0.5) == sparsity((SPIKES - 0.5).relu())
    assert "SparsityEnforcer(max_rate=0.25" in str(model)
    assert "2 class weights" in str(LossModule(sx.SpikeMax(time_axis=-1), weight=WEIGHT))


@pytest.mark.compiles
def test_compiled_module_equals_eager():
    module = LossModule(sx.SpikeMax(moving_window=2, time_axis=-1), weight=WEIGHT)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert compiled(SPIKES, LABEL) == module(SPIKES, LABEL)


@pytest.mark.parametrize("loss", [sx.SpikeMax, "SpikeMax", None])
def test_what_is_no_loss_object_raises(loss):
    with pytest.raises(TypeError, match="loss must be a loss object, such as SpikeMax"):
        LossModule(loss)
