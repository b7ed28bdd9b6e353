"""python -m minivl as a user meets it: help, work, faults in one line, exit codes, Ctrl-C."""

import contextlib
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minivl import __main__ as cli

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "minivl", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", **options)


def call(capsys, *words: str) -> tuple[int, str, str]:
    """main() in this process, for speed: exit code, what it printed, and what it said on stderr."""
    try:
        code = cli.main(list(words))
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_without_importing_torch():
    help_alone = "try: cli.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    code = f"import sys; from minivl import __main__ as cli\n{help_alone}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    for name, (_, summary) in cli.COMMANDS.items():
        assert name in done.stdout
        assert summary.split()[0] in done.stdout


@pytest.mark.parametrize(
    "words", [[name] for name in cli.COMMANDS] + [["bench", "ops"], ["bench", "kernels"]], ids=" ".join
)
def test_every_command_has_help(capsys, words):
    code, out, err = call(capsys, *words, "--help")
    assert code == 0
    assert out.startswith(f"usage: python -m minivl {' '.join(words)}")
    assert not err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "COMMAND"),
        (["sing"], "sing"),
        (["bench"], "WHAT"),
        (["bench", "nothing"], "nothing"),
        (["bench", "ops", "--rounds", "0"], "--rounds"),
        (["bench", "ops", "--rounds", "few"], "few"),
        (["bench", "ops", "--tokens", "12,x"], "12,x"),
        (["bench", "ops", "--tokens", "0"], "--tokens"),
        (["bench", "ops", "--tokens", ""], "--tokens"),
        (["demo", "--ladder", "--tokens", "many"], "many"),
        (["demo", "--frames", "0"], "--frames"),
        (["demo", "--seed", "first"], "first"),
        (["demo", "--loud"], "--loud"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_read_is_exit_code_2(capsys, words, named):
    code, out, err = call(capsys, *words)
    assert code == 2
    assert not out
    assert named in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["bench", "ops", "--quick", "--json", "README.md/in/a/file.json"], "README.md is not a folder"),
        (["bench", "ops", "--quick", "--json", "tests"], "tests is a folder"),
        (["bench", "ops", "--quick", "--plot", "growth.txt"], ".png"),
        (["bench", "kernels", "--plot", "growth.txt"], ".png"),
        (["bench", "ops", "--quick", "--plot", "README.md/growth.png"], "README.md is not a folder"),
        (["demo", "--ladder", "--tokens", "1000"], "--tokens is 1000"),
        (["demo", "--ladder", "--tokens", "-256"], "--tokens is -256"),
        (["demo", "--ladder", "--report", "demo.txt"], ".png"),
        (["demo", "--ladder", "--report", "tests"], "tests is a folder"),
        (["demo", "--ladder", "--frames", "100"], "--frames belongs to the demo without --ladder"),
        (["demo", "--tokens", "65536"], "--tokens belongs to the demo with --ladder"),
        (["demo", "--frames", "35"], "--frames is 35; it should be at least 36"),
        (["demo", "--seed", "-1"], "seed is -1"),
        (["demo", "--model", "nowhere"], "nowhere is not a folder"),
        (["demo", "--report", "demo.png"], ".html"),
        (["demo", "--report", "tests"], "tests is a folder"),
    ],
    ids=" ".join,
)
def test_a_fault_of_the_user_is_one_line_and_exit_code_1_before_any_work(capsys, monkeypatch, words, named):
    monkeypatch.chdir(ROOT)
    code, out, err = call(capsys, *words)
    assert code == 1
    assert not out
    assert err.count("\n") == 1
    assert named in err


def test_a_fault_shows_no_traceback_to_the_shell():
    done = run("demo", "--ladder", "--tokens", "7")
    assert done.returncode == 1
    assert done.stderr.startswith("python -m minivl demo: --tokens is 7")
    assert "Traceback" not in done.stderr


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    """Only faults that a user can mend become a line."""
    from minivl import demo

    def mistaken(args):
        raise AssertionError("ours")

    monkeypatch.setattr(demo, "run", mistaken)
    with pytest.raises(AssertionError, match="ours"):
        cli.main(["demo"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, this test included")
def test_ctrl_c_leaves_with_130_and_no_traceback():
    # Where the tests run in the background of a shell, SIGINT is ignored, and a child would inherit that.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    call = f"from minivl.__main__ import main; sys.exit(main(['demo', '--ladder', '--tokens', '{256 * 100_000}']))"
    command = [sys.executable, "-c", f"{heed}; {call}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "demo" in process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped" in err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently there")
def test_a_reader_who_has_seen_enough_is_no_error():
    pipe = subprocess.Popen(
        [sys.executable, "-m", "minivl", "demo", "--ladder", "--tokens", "16384"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    pipe.stdout.close()
    err = pipe.stderr.read()
    pipe.stderr.close()
    assert pipe.wait(timeout=60) == 141
    assert err == b""


def test_a_pipe_takes_every_character_whatever_the_system_writes_in(monkeypatch):
    pipe = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(pipe, encoding="cp1252"))
    cli.speak_utf8()
    print("世界", flush=True)
    assert pipe.getvalue().decode().strip() == "世界"
