"""The guard of speed, with numbers in place of measurements."""

import contextlib
import itertools
import json

import guard
import pytest

HERE, ELSEWHERE = {"processor": "this one"}, {"processor": "another one"}
BASE = "the commit of the record"


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Return a function that checks measured ratios against a record for a machine."""
    monkeypatch.setattr(guard, "RECORD", tmp_path / "speed.json")
    monkeypatch.setattr(guard, "machine", lambda: HERE)
    monkeypatch.setattr(guard, "last_recorded", lambda: BASE)
    monkeypatch.setattr(guard, "checkout", contextlib.nullcontext)

    def run(recorded, *now, machine=HERE, of_base=None):
        record = {"machine": machine, "rows": recorded}
        guard.RECORD.write_text(json.dumps(record), encoding="utf-8")
        bases = {BASE: of_base}
        runs = itertools.chain(now, itertools.repeat(now[-1]))

        def measured(tree, names):
            found = next(runs) if tree == guard.ROOT else bases[tree]
            return {name: found[name] for name in names or found}

        monkeypatch.setattr(guard, "measured", measured)
        return guard.check(None)

    return run


def test_slower_row_fails(check, capsys):
    recorded = {"a": 1.0, "b": 2.0}
    assert check(recorded, {"a": 1.2, "b": 2.1})
    assert not check(recorded, {"a": 1.0, "b": 2.0 * guard.FACTOR + 0.1}, of_base=recorded)
    assert "slower" in capsys.readouterr().out.splitlines()[-1]


ONE, TWO = {"a": 1.0}, {"a": 2.0}
BOTH, SLOW = ONE | {"b": 1.0}, TWO | {"b": 1.0}


@pytest.mark.parametrize(
    ("recorded", "now", "options", "passes"),
    [
        (BOTH, [{"a": 9.0, "b": 1.0}, ONE], {}, True),  # slower only once
        (BOTH, [SLOW], {"of_base": {"a": 1.9}}, True),  # other programs slow it down
        (ONE, [BOTH], {}, False),  # a row without a record
        (BOTH, [ONE], {}, False),  # a record without a row
        (ONE, [TWO], {"machine": ELSEWHERE, "of_base": TWO}, True),  # the commit counts then
        (TWO, [TWO], {"machine": ELSEWHERE, "of_base": ONE}, False),
    ],
)
def test_row_passes_or_fails(check, recorded, now, options, passes):
    assert check(recorded, *now, **options) == passes
