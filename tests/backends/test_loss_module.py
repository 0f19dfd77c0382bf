"""A loss as a PyTorch module: in containers, copied, converted and in checkpoints."""

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from spikeloss_xp.backends.torch import LossModule

SPIKES = torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]], [[0, 0, 0, 1], [1, 1, 0, 1]]])
LABEL = torch.tensor([0, 1])
WEIGHT = [1.0, 3.0]
LOSSES = {
    "SpikeTime": (sx.SpikeTime(), (SPIKES.roll(1, -1),), None),
    "SpikeRate": (sx.SpikeRate(0.5, 0.0, reduction="mean"), (LABEL,), WEIGHT),
    "SpikeMax": (sx.SpikeMax(2), (LABEL,), WEIGHT),
    "SpikeLatency": (
        sx.SpikeLatency(tolerance=0.5, time_axis=-1, reduction="sum"),
        (LABEL,),
        WEIGHT,
    ),
    "SpikeMoid": (sx.SpikeMoid(reduction="batchmean", theta=0), (torch.eye(2),), WEIGHT),
    "SparsityEnforcer": (sx.SparsityEnforcer(), (), None),
}
LENGTHS = [4, 2]
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_module_equals_the_loss_with_its_weight(name):
    loss, target, weight = LOSSES[name]
    module = LossModule(loss, weight=weight)
    options = {"lengths": LENGTHS, **({} if weight is None else {"weight": weight})}
    assert module(SPIKES, *target, lengths=LENGTHS) == loss(SPIKES, *target, **options)
    if name != "SparsityEnforcer":
        assert module.sum_and_weight(SPIKES, *target, lengths=LENGTHS) == loss.sum_and_weight(
            SPIKES, *target, **options
        )


def test_weight_of_a_call_comes_first():
    loss = sx.SpikeMax(2)
    module = LossModule(loss, weight=WEIGHT)
    assert module(SPIKES, LABEL, weight=[2.0, 1.0]) == loss(SPIKES, LABEL, weight=[2.0, 1.0])
    assert module(SPIKES, LABEL, weight=None) == module(SPIKES, LABEL)  # what a wrapper may pass


@every_loss
def test_copies_and_pickles_are_equal(name):
    loss, target, weight = LOSSES[name]
    module = LossModule(loss, weight=weight)
    for made in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert made.loss == loss
        assert made(SPIKES, *target) == module(SPIKES, *target)


def test_weight_is_a_buffer_and_the_loss_has_no_parameters():
    module = LossModule(sx.SpikeMax(), weight=WEIGHT)
    assert list(module.parameters()) == []
    assert module.to(torch.float64).weight.dtype == torch.float64
    assert module.to("meta").weight.device.type == "meta"
    assert LossModule(sx.SpikeMax()).state_dict() == {}


def test_given_tensor_is_not_changed():
    weight = torch.tensor(WEIGHT)
    LossModule(sx.SpikeMax(), weight=weight).to(torch.float64)
    assert weight.dtype == torch.float32


def test_checkpoint_with_plain_tensors_restores_the_weight():
    losses = torch.nn.ModuleDict({"max": LossModule(sx.SpikeMax(), weight=WEIGHT)})
    file = io.BytesIO()
    torch.save(losses.state_dict(), file)
    file.seek(0)
    losses = torch.nn.ModuleDict({"max": LossModule(sx.SpikeMax(), weight=[0.0, 0.0])})
    losses.load_state_dict(torch.load(file, weights_only=True))
    assert losses["max"].weight.tolist() == WEIGHT


def test_loss_object_in_a_checkpoint_can_be_allowed():
    file = io.BytesIO()
    torch.save({"loss": sx.SpikeMax(3)}, file)
    with torch.serialization.safe_globals([sx.SpikeMax]):
        file.seek(0)
        assert torch.load(file, weights_only=True) == {"loss": sx.SpikeMax(3)}


def test_sequential_prints_the_loss_and_calls_one_without_a_target():
    sparsity = sx.SparsityEnforcer(0.25)
    model = torch.nn.Sequential(torch.nn.ReLU(), LossModule(sparsity))
    assert model(SPIKES - 0.5) == sparsity((SPIKES - 0.5).relu())
    assert "SparsityEnforcer(max_rate=0.25" in str(model)
    assert "weight of 2 classes" in str(LossModule(sx.SpikeMax(), weight=WEIGHT))


def test_compiled_module_equals_eager():
    module = LossModule(sx.SpikeMax(2), weight=WEIGHT)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert compiled(SPIKES, LABEL) == module(SPIKES, LABEL)


@pytest.mark.parametrize("loss", [sx.SpikeMax, "SpikeMax", None])
def test_what_is_no_loss_object_raises(loss):
    with pytest.raises(TypeError, match="loss must be a loss object, such as SpikeMax"):
        LossModule(loss)
