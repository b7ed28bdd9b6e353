"""python -m minivl demo --ladder: the checks of the ops and of one block, and a check that fails."""

from .test_cli import call, run


def test_the_ladder_holds_and_writes_its_report(tmp_path):
    report = tmp_path / "made" / "demo.png"
    done = run("demo", "--ladder", "--tokens", "16384", "--report", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert report.read_bytes().startswith(b"\x89PNG")
    assert "12 of 12 checks hold" in done.stdout
    assert f"report: {report}" in done.stdout
    assert "no language yet" in done.stdout


def test_the_ladder_fails_when_a_check_fails(capsys, monkeypatch, tmp_path):
    """A chunked form that is off by one part in 100,000: the line says FAILED and the exit code is 1."""
    from minivl.demo import ladder

    honest = ladder.LADDER["delta rule"]

    def off(x):
        out, state = honest.fast(x)
        return out * 1.00001, state

    broken = ladder.LADDER | {"delta rule": type(honest)(honest.naive, off)}
    monkeypatch.setattr(ladder, "LADDER", broken)
    code, out, _ = call(capsys, "demo", "--ladder", "--tokens", "16384", "--report", str(tmp_path / "demo.png"))
    assert code == 1
    assert [line for line in out.splitlines() if "FAILED" in line and "delta rule" in line]
    assert "11 of 12 checks hold" in out
