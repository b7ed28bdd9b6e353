"""python -m minivl demo: what it shows, asks, prints and writes. The model is a fake and answers nonsense."""

import contextlib
import dataclasses
import html
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivl import __main__ as cli
from minivl.config import DecoderConfig
from minivl.demo import facts, watching
from minivl.demo.facts import SHORTEST, stream_of_facts
from minivl.demo.results import Answer, Watched
from minivl.generate import chat
from minivl.memory import Memory
from minivl.processor import load_processor
from minivl.stream import Stream
from minivl.train.splits import HELD_OUT
from minivl.train.tiny_streams import NOT_SHOWN
from minivl.train.tiny_world import TinyWorld

from .fakes import tiny_folder, tiny_model

WINDOW, FRAMES = 16, 60
FAKE = {"layer_types": DecoderConfig.layer_types, "sliding_window": WINDOW}  # one block


@pytest.fixture(autouse=True, scope="module")
def short_answers():
    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(watching, "LONGEST", 4)
        yield


def demo(path, *words: object) -> tuple[int, str, str]:
    """Exit code, what it printed, and the page that it wrote."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(["demo", "--model", str(tiny_folder(**FAKE)), "--report", str(path), *map(str, words)])
    return code, said.getvalue(), path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(short_answers, tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "made" / "page.html", "--frames", FRAMES)


# The stream and its questions


@given(frames=st.integers(SHORTEST, 700), seed=st.integers(0, 2**40), window=st.sampled_from((24, 64, 96)))
def test_each_question_has_the_truth_of_its_moment(frames, seed, window):
    stream, rounds = stream_of_facts(frames, seed=seed, window=window)
    seen = [stream.pool.fact(int(number)) for number in stream.numbers]
    assert len(stream) == frames == max(rounds)
    assert len(rounds) == 3
    assert len({box for fact in seen if fact for box in fact[0]}) == 4
    for after, questions in rounds.items():
        assert len({question.asked.box for question in questions}) == 5
        for question in questions:
            told = [fact[1] for fact in seen[:after] if fact and fact[0] == question.asked.box]
            assert question.after == after
            assert question.asked.answer == (told[-1] if told else NOT_SHOWN)
            assert (question.before.answer if question.before else None) == (told[-2] if told[1:] else None)
            assert not told[1:] or told[-1] != told[-2]
        assert [question.asked.answer for question in questions].count(NOT_SHOWN) == 1


@given(seed=st.integers(0, 2**40))
def test_what_is_asked_for_is_near_and_far_and_replaced(seed):
    stream, rounds = stream_of_facts(576, seed=seed, window=64)
    ago = [[stream.windows(question.asked) for question in questions] for questions in rounds.values()]
    assert ago == [[0, 1, 4, 8, None], [1, 0, 16, 4, None], [0, 8, 28, 16, None]]
    watched = Watched(stream)
    answers = [Answer(question, "", "", "") for questions in rounds.values() for question in questions]
    assert [watched.near(answer) for answer in answers] == [windows == 0 for one in ago for windows in one]
    assert [watched.far(answer) for answer in answers] == [bool(windows) for one in ago for windows in one]
    replaced = [[question.before is not None for question in questions] for questions in rounds.values()]
    assert replaced == [[False] * 5, [True, True, False, True, False], [True, True, False, True, False]]


def test_a_seed_gives_the_same_stream_and_another_seed_another():
    def told(seed):
        stream, rounds = stream_of_facts(100, seed=seed, window=64)
        return stream.numbers.tolist(), rounds

    assert told(3) == told(3)
    assert told(3)[0] != told(4)[0]


def test_what_looks_like_the_box_that_never_came_is_a_disc_with_its_letter():
    stream, rounds = stream_of_facts(576, seed=0, window=64)
    for questions in rounds.values():
        at = facts.lookalike(stream, questions[-1])
        record = stream.pool.record(int(stream.numbers[at]))
        assert at < questions[-1].after
        assert (record["what"], record["letter"]) == ("disc", questions[-1].asked.box)
    assert facts.lookalike(stream, dataclasses.replace(questions[-1], after=0)) is None


# What it says


def test_answers_are_the_models_own(shown):
    """The same pictures and the same stream, looked at, watched and asked by hand."""
    model, processor = tiny_model(**FAKE), load_processor(tiny_folder(**FAKE))
    stream, rounds = stream_of_facts(FRAMES, seed=0, window=WINDOW)
    watched, said = Stream(model, processor, size=(56, 56)), []
    for frame in stream.frames:
        watched.watch(frame.picture.image, seconds=frame.seconds)
        for question in rounds.get(watched.frames_seen, ()):
            said.append("".join(watched.ask(question.asked.question, max_new_tokens=watching.LONGEST)))
    pictures = [TinyWorld(HELD_OUT, 0).of(kind, 0).messages for kind in watching.KINDS]
    heard = ["".join(chat(model, processor, messages, max_new_tokens=watching.LONGEST)) for messages in pictures]
    assert re.findall(r"(?:ok   |WRONG) \w+: .*\?  (.*)\n", shown[1]) == list(map(watching.plain, heard))
    printed = re.findall(r"(?:ok   |WRONG) What is in box (.)\?  (.*)\n", shown[1])
    asked = [question.asked.box for questions in rounds.values() for question in questions]
    assert printed == list(zip(asked, map(watching.plain, said), strict=True))
    assert len({answer for _, answer in printed}) > 5


def test_it_prints_every_question_with_answer_and_truth(shown):
    code, out, _ = shown
    assert code == 0
    for kind in watching.KINDS:
        sample = TinyWorld(HELD_OUT, 0).of(kind, 0)
        assert re.search(rf"{kind}: {re.escape(sample.question)}  .+\n +truth: {re.escape(sample.answer)}\n", out)
    _, rounds = stream_of_facts(FRAMES, seed=0, window=WINDOW)
    truths = [question.asked.answer for questions in rounds.values() for question in questions]
    assert re.findall(r"truth: (.+?), (?:shown|in no frame)", out) == truths
    for heading in ("1. The model", "2. Pictures", "3. A stream of 60 frames", "4. Memory and time", "5. In all"):
        assert heading in out
    assert "241 tokens, memory" in out
    assert "memory: constant" in out
    assert "A wrong answer is the model's own" in out


def test_memory_is_told_at_each_50_frames_beside_what_full_attention_would_hold(shown):
    model = tiny_model(**FAKE)
    nbytes = Stream(model, load_processor(tiny_folder(**FAKE)), size=(56, 56)).memory.nbytes
    rows = re.findall(r"^ +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +[\d.]+$", shown[1], re.MULTILINE)
    numbers = [[int(number.replace(",", "")) for number in row] for row in rows]
    assert [row[:3] for row in numbers] == [[50, 201, nbytes], [60, 241, nbytes]]
    layers = len(model.config.layer_types)
    twin = dataclasses.replace(model.config, layer_types=("full_attention",) * layers)
    for _, tokens, _, full in numbers:
        held = Memory(twin, longest_write=1, room=tokens).tensors()
        assert full == sum(x.nbytes for name, x in held.items() if name.endswith((".keys", ".values")))


def test_what_is_right_is_counted_and_called_so(monkeypatch, tmp_path):
    """A model that knows every box, but names the content of before where there was one."""
    told = {}
    stream_of = watching.stream_of_facts

    def remembered(*args, **options):
        stream, rounds = stream_of(*args, **options)
        told.update({(after, q.asked.question): q for after, questions in rounds.items() for q in questions})
        return stream, rounds

    def ask(stream, messages, **options):
        question = told[stream.frames_seen, messages[0]["content"]]
        yield question.before.answer if question.before else question.asked.answer

    monkeypatch.setattr(watching, "stream_of_facts", remembered)
    monkeypatch.setattr(Stream, "ask", ask)
    monkeypatch.setattr(watching, "chat", lambda model, processor, messages, **options: iter([" 6\n"]))
    code, out, page = demo(tmp_path / "page.htm", "--frames", 72)
    assert code == 0
    assert "pictures: 1 of 8 right" in out  # the stars are six
    assert "the stream: 9 of 15 right: 2 of 5 about facts in the window, 4 of 7 about older ones" in out
    assert "3 of 3 about boxes that never came" in out
    assert out.count("which is what it said") == page.count("which is what it said") == 6
    assert out.count("  ok    ") == page.count("✓ right") == 10
    assert out.count("  WRONG ") == page.count("✗ wrong") == 13


# What must hold


def test_a_memory_that_grows_is_exit_code_1_also_if_it_shrinks_before_it_is_asked(monkeypatch, tmp_path):
    honest = Memory.nbytes.fget
    monkeypatch.setattr(Memory, "nbytes", property(lambda memory: honest(memory) + 8 * (60 < memory.tokens_seen < 90)))
    code, out, page = demo(tmp_path / "page.html", "--frames", SHORTEST)
    assert code == 1
    assert "memory: NOT CONSTANT, from" in out
    assert "Memory: NOT CONSTANT, from" in page


def test_a_question_that_leaves_a_trace_is_exit_code_1(monkeypatch, tmp_path):
    honest = Stream.ask

    def ask(stream, question, **options):
        yield from honest(stream, question, **options)
        stream.memory.layers[1].state[0, 0, 0, 0] += 1e-3

    monkeypatch.setattr(Stream, "ask", ask)
    code, out, page = demo(tmp_path / "page.html", "--frames", SHORTEST)
    assert code == 1
    assert out.count("NOT THE SAME, bit for bit") == 3
    assert "memory: NOT AS IT WAS after a question" in out
    assert "Memory: NOT AS IT WAS after a question" in page


def test_a_model_with_full_attention_is_refused_in_one_line(capsys, tmp_path):
    layers = ("full_attention",) * 8
    words = ["demo", "--model", str(tiny_folder(layer_types=layers)), "--report", str(tmp_path / "page.html")]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "a stream needs constant memory" in err


# The page


class Tags(HTMLParser):
    """Tags with their attributes; and whether each that was opened was closed, in order."""

    ALONE = ("meta", "img", "path", "use", "rect")

    def __init__(self, page: str):
        super().__init__()
        self.found, self.open, self.words = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.ALONE:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_has_every_question_picture_and_plot(shown):
    tags = Tags(shown[2])
    assert not tags.open
    samples = [TinyWorld(HELD_OUT, 0).of(kind, 0) for kind in watching.KINDS]
    _, rounds = stream_of_facts(FRAMES, seed=0, window=WINDOW)
    for asked in (*samples, *(question.asked for questions in rounds.values() for question in questions)):
        assert asked.question in tags.words
        assert asked.answer in tags.words
    said = re.findall(r"^  (?:ok   |WRONG) .*\?  (.*)$", shown[1], re.MULTILINE)
    assert len(said) == 23
    assert [html.unescape(words) for words in re.findall(r"<span class='said'>(.*?)</span>", shown[2])] == said
    for sample in samples[:2]:
        line = sample.record["lines"][sample.record.get("asked", 1) - 1]
        assert line["text"] == sample.answer
        assert f"Letters of {line['size']} pixels, {line['font']}." in tags.words
    assert tags.words.count("Letters of ") == 2
    alts = [image["alt"] for image in tags.all("img")]
    assert sum(alt.startswith("picture ") for alt in alts) == sum(len(sample.pictures) for sample in samples)
    for questions in rounds.values():
        for asked in (question.asked for question in questions if question.asked.frame is not None):
            words = f"frame {asked.frame + 1}: a box, in it {asked.box}:{asked.answer}"
            assert [image["alt"] for image in tags.all("img") if image.get("class") == "fact"].count(words) >= 1
    assert [attributes["role"] for attributes in tags.all("svg")] == ["img"] * 3
    assert all(len(attributes["aria-label"]) > 20 for attributes in tags.all("svg"))


def test_the_page_needs_nothing_but_itself_and_suits_light_and_dark(shown):
    page, tags = shown[2], Tags(shown[2])
    assert "http:" not in page
    assert "https:" not in page
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in tags.found}
    for image in tags.all("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert image["alt"]
        assert int(image["width"]) > 0
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "prefers-color-scheme: dark" in page
    assert {"name": "viewport", "content": "width=device-width"} in tags.all("meta")
    names = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(names) == len(set(names)) > 3
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) == set(names)
    assert not re.search(r"(?:fill|stroke): #(?!ffffff)", page)  # all colours are the page's own


def test_what_a_model_says_is_text_on_the_page_and_in_the_terminal(monkeypatch, tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J &\n'"
    monkeypatch.setattr(Stream, "ask", lambda stream, messages, **options: iter([evil]))
    monkeypatch.setattr(watching, "chat", lambda model, processor, messages, **options: iter([evil]))
    _, out, page = demo(tmp_path / "page.html", "--frames", SHORTEST)
    said = "<script>alert(1)</script>\ufffd[2J & '"
    assert out.count(f"  {said}\n") == 23
    assert page.count(html.escape(said)) == 23
    assert "<script" not in page
    assert "\x1b" not in out + page


def test_an_empty_answer_is_said_to_be_one(monkeypatch, tmp_path):
    monkeypatch.setattr(Stream, "ask", lambda stream, messages, **options: iter(()))
    _, out, page = demo(tmp_path / "page.html", "--frames", SHORTEST)
    assert out.count("  (nothing)\n") == page.count("(nothing)") == 15
