"""The page docs/guides/recordings.md: its scores, and what it says about nemos and PyTorch."""

import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.pages import DOCS
from _support.peers import import_peer

PAGE = (DOCS / "guides" / "recordings.md").read_text(encoding="utf-8")


def names_before(heading):
    """Return the names that the page defines before a heading."""
    text, names = PAGE.split(f"\n## {heading}\n")[0], {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def page():
    return names_before("Fit in JAX")


@pytest.mark.compiles
def test_scores_in_the_table_are_those_of_the_fit():
    for needed in ("jax", "torch"):
        pytest.importorskip(needed)
    names = names_before("The same data in nemos")
    rows = re.findall(r"^\| [^|]+ \| `(.+)` \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 4
    for line, value in rows:
        assert eval(line, names) == pytest.approx(float(value), abs=1e-3), line


@pytest.mark.compiles
@pytest.mark.parametrize("neuron", [0, 1])
def test_glm_of_the_page_has_the_likelihood_and_scores_of_nemos(page, neuron):
    nemos, loss = import_peer("nemos"), page["loss"]
    past = page["past"][:, neuron].astype(float)
    counts = page["counts"][:, neuron].astype(float)
    with on("jax-x64"):
        model = nemos.glm.GLM(solver_name="LBFGS", solver_kwargs={"tol": 1e-12, "maxiter": 2000})
        model.fit(past[:7].reshape(-1, 3), counts[:7].reshape(-1))
        x, y = past[7:].reshape(-1, 3), counts[7:].reshape(-1)
        rates, kind = model.predict(x), nemos.observation_models.PoissonObservations()
        likelihood = float(kind._negative_log_likelihood(y, rates))
        cohen, mcfadden = (
            float(kind.pseudo_r2(y, rates, score_type=f"pseudo-r2-{name}"))
            for name in ("Cohen", "McFadden")
        )
        fitted = np.concatenate([np.ravel(model.intercept_), np.ravel(model.coef_)])
    assert f"{cohen:.3f}" in PAGE
    fit, recorded = np.log(np.asarray(rates))[None, None], y[None, None]
    np.testing.assert_allclose(loss(fit, recorded), likelihood, rtol=1e-12)
    np.testing.assert_allclose(loss.deviance_explained(fit, recorded), cohen, rtol=1e-12)
    full = sx.PoissonNLL(time_axis=-1, constant=True, reduction="sum")(fit, recorded)
    gain, _ = loss.gain_and_spikes(fit, recorded, null=[y.mean()])
    np.testing.assert_allclose(gain / (gain + full), mcfadden, rtol=1e-12)

    # The fit of nemos is a minimum of this loss.
    ones = np.ones((*past.shape[:2], 1))
    predictors = np.concatenate([ones, past], axis=-1)[:7]  # [second, time, predictor]
    _, gradient = sx.value_and_grad(loss)((predictors @ fitted)[:, None], counts[:7, None])
    assert np.abs(np.einsum("btk,bnt->k", predictors, gradient)).max() < 1e-6
