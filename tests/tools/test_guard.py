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


def test_row_that_is_slower_only_once_passes(check):
    assert check({"a": 1.0, "b": 1.0}, {"a": 9.0, "b": 1.0}, {"a": 1.0})


def test_row_that_other_programs_slow_down_passes(check):
    assert check({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, of_base={"a": 1.9})


def test_row_without_a_record_fails(check):
    assert not check({"a": 1.0}, {"a": 1.0, "b": 1.0})
    assert not check({"a": 1.0, "b": 1.0}, {"a": 1.0})


def test_record_of_another_machine_is_replaced_by_the_commit_that_wrote_it(check):
    assert check({"a": 1.0}, {"a": 2.0}, machine=ELSEWHERE, of_base={"a": 2.0})
    assert not check({"a": 2.0}, {"a": 2.0}, machine=ELSEWHERE, of_base={"a": 1.0})
