"""Killed at any moment a run goes on as if nothing had been; two processes find what one finds. See train_processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[dict]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.train_processes", str(tmp_path_factory.mktemp("training"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def kills(told) -> list[dict]:
    return [row for row in told if "when" in row]


@pytest.fixture(scope="module")
def spread(told) -> list[dict]:
    return [row for row in told if "way" in row]


def test_a_run_that_was_killed_at_any_moment_gives_the_same_losses_and_weights_bit_for_bit(kills):
    killed = [row for row in kills if row["when"].startswith(("call", "in the middle"))]
    assert len(killed) == 8
    assert {row["code"] for row in killed} == {-9}
    assert [row["when"] for row in killed if row["again"] or not row["same"]] == []
    assert kills[-1]["steps"] == [1, 2, 3, 4, 5]
    assert len(set(kills[-1]["losses"])) == 5


def test_the_kills_come_before_between_and_after_checkpoints(kills):
    found = {tuple(row["checkpoints"]) for row in kills if row["when"].startswith("call")}
    assert () in found
    assert ("step-00000002",) in found
    assert ("step-00000004", "step-00000005") in found, "two are kept"


def test_a_full_disk_is_one_clear_error_and_loses_nothing(kills):
    (row,) = (row for row in kills if row["when"] == "with a full disk")
    assert row["checkpoints"] == ["step-00000002"]
    assert "step-00000004 could not be written" in row["said"]
    assert "step-00000002 is whole; make room and run again" in row["said"]
    assert row["again"] == 0
    assert row["same"]


@pytest.mark.parametrize(("stage", "way"), [("tuning", "ddp"), ("tuning", "fsdp"), ("layers", "fsdp")])
def test_two_processes_find_the_gradients_losses_and_weights_of_one(spread, stage, way):
    """In float64, each process's examples of other lengths, and pictures in one of them only."""
    (row,) = (row for row in spread if (row.get("stage"), row["way"]) == (stage, way))
    assert row["codes"] == [0, 0]
    assert row["rows"] == 2, "one row a step, though there are two processes"
    assert row["gradients"] < 1e-12
    assert row["losses"] < 1e-12
    assert row["weights"] < 1e-10


def test_a_checkpoint_goes_on_in_any_number_of_processes(spread):
    moved = [row for row in spread if "from" in row]
    assert {(row["from"], row["to"]) for row in moved} == {(1, 2), (2, 1)}
    for row in moved:
        assert set(row["codes"]) == {0}
        assert row["steps"] == [1, 2]
        assert row["weights"] < 1e-10
