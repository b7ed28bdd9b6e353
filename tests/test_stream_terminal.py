"""A stream that is broken off, by Ctrl-C or for want of memory, and what it looks like at a terminal."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from minivl.commands import stream_terminal
from minivl.commands.sources import Synthetic
from minivl.commands.stream_terminal import Live
from minivl.stream import Stream

from . import streaming
from .fakes import tiny_folder
from .streaming import BASE, MODEL, PROCESSOR, ROOT, SIZE, asked, assert_same, call, oracle

keyboard, pytestmark = streaming.keyboard, pytest.mark.usefixtures("keyboard")


# Ctrl-C and the terminal ---------------------------------------------------------------------------------------------


def test_ctrl_c_finishes_the_frame_ends_an_answer_and_saves(capsys, monkeypatch, tmp_path):
    true = Stream.watch

    def watch(stream, frame, *, seconds=None):
        if seconds == 2:
            signal.raise_signal(signal.SIGINT)
        true(stream, frame, seconds=seconds)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Stream, "watch", watch)
    found = asked(capsys, "--synthetic", 9, "--save", tmp_path / "kept", "--ask", "5:never", code=130)
    monkeypatch.undo()
    assert_same(Stream.resume(tmp_path / "kept", MODEL, PROCESSOR), oracle(Synthetic(9, size=SIZE), number=3))
    assert (found["interrupted"], found["ended"], found["unasked"]) == (True, "Ctrl-C", ["never"])
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_an_answer_ends_it(capsys, monkeypatch, tmp_path):
    def ask(stream, question, **options):
        yield "one "
        signal.raise_signal(signal.SIGINT)
        yield "two "
        raise AssertionError("asked for more")

    monkeypatch.setattr(Stream, "ask", ask)
    found = asked(capsys, "--synthetic", 9, "--ask", "1:?", "--ask", "2:never", code=130)
    assert [(x["answer"], x["interrupted"]) for x in found["answers"]] == [("one two ", True)]
    assert found["frames"]["watched"] == 2


def test_a_second_ctrl_c_breaks_off_and_a_torn_stream_is_not_kept(capsys, monkeypatch, tmp_path):
    def torn(*rest):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("minivl.frames.absorb", torn)
    kept = tmp_path / "kept"
    code, _, err = call(capsys, "--synthetic", 9, "--save", kept)
    assert code == 130
    assert f"not kept in {kept}" in err
    assert not kept.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals like these")
def test_at_a_terminal_there_is_a_live_line_questions_are_typed_and_ctrl_c_leaves_it_clean(tmp_path):
    import pty
    import termios

    ours, theirs = pty.openpty()
    settings, kept = termios.tcgetattr(theirs), tmp_path / "kept"
    words = [*BASE, "--model", str(tiny_folder()), "--synthetic", "100000", "--realtime", "--fps", "20", "--save", kept]
    lead = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{lead}; from minivl.__main__ import main; sys.exit(main({[str(word) for word in words]!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        env=os.environ | {"COLUMNS": "100", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seen = ""

    def until(words: str) -> str:
        """What is shown until these words are, from now on."""
        nonlocal seen
        begun, end = len(seen), time.monotonic() + 20
        while words not in seen[begun:] and time.monotonic() < end:
            seen += os.read(ours, 4096).decode(errors="replace")
        assert words in seen[begun:]
        return seen[begun:]

    try:
        until("behind real time")
        os.write(ours, b"\n")
        until("? ")
        time.sleep(0.5)  # the line stands still, and the stream goes on
        os.write(ours, b"What is it?\n")
        assert "frames · " not in until("What is it?")
        until("behind real time")
        process.send_signal(signal.SIGINT)
        until("kept in")
        out, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()
        after = termios.tcgetattr(theirs)
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 130
    assert "s] What is it?" in out.decode()
    assert after == settings
    last = seen.rindex("real time")
    assert seen[last:].startswith("real time\r\x1b[Kstopped\r\n")  # the live line was wiped away
    assert Stream.resume(kept, MODEL, PROCESSOR).frames_seen > 0


def test_the_live_line_fits_and_stands_still_while_a_question_is_typed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    live = Live()
    live.show("a line of rather more than twenty letters")
    live.prompt()
    live.show("not shown")
    live.note("said")
    assert capsys.readouterr().err == "\r\x1b[Ka line of rather mo\r\x1b[K? \nsaid\n"


def test_a_terminal_of_a_job_in_the_background_is_not_read(monkeypatch):
    if not hasattr(os, "tcgetpgrp"):
        pytest.skip("this system has no jobs")
    monkeypatch.setattr(stream_terminal.os, "isatty", lambda handle: True)
    monkeypatch.setattr(stream_terminal.os, "tcgetpgrp", lambda handle: os.getpgrp() + 1)
    assert stream_terminal.in_background(0)


# Out of memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …"), RuntimeError("can't allocate memory")],
    ids=["GPU", "CPU"],
)
def test_out_of_memory_is_one_line_that_says_what_would_fit(capsys, monkeypatch, fault):
    def watch(stream, frame, *, seconds=None):
        raise fault

    monkeypatch.setattr(Stream, "watch", watch)
    code, out, err = call(capsys, "--synthetic", 3)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "out of memory for a frame of 56×56" in err
    assert "--size 28 would need about 25%" in err


def test_no_room_for_a_stream_at_all_is_one_line(capsys, monkeypatch):
    def no_room(*rest, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("minivl.commands.stream.Stream", no_room)
    code, out, err = call(capsys, "--synthetic", 3)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cpu has no room for a stream's memory beside 0.00 GB of weights" in err
