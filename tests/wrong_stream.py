"""The wrong table's rows for a stream. See wrong.py."""

from types import ModuleType

from . import stream_claims
from .catching import Rung, Wrong
from .editing import Edit
from .stream_claims import StreamCase

WATCH = stream_claims.watching_is_one_call_over_the_whole_row
ANSWER = stream_claims.it_answers_what_the_whole_row_answers
UNASKED = stream_claims.asking_never_touches_the_stream
MANY = stream_claims.many_questions_at_once_are_answered_as_each_alone
ANEW = stream_claims.a_second_question_sees_what_came_since_the_first
AHEAD = stream_claims.frames_made_ready_ahead_are_those_watched_one_by_one
SAVED = stream_claims.saved_and_resumed_equals_uninterrupted
REFUSED = stream_claims.a_refused_frame_leaves_the_stream_as_it_was


def streams_of(module: ModuleType) -> dict[str, type]:
    return {"Stream": module.Stream}


def stream_cases(regime: str, dtype) -> list[StreamCase]:
    """`regime` is where frames' times come from: counted, also in tenths of a second, or stamped."""
    if regime == "tenths":
        return [StreamCase(frames=11, fps=10)]
    if regime == "stamped":
        return [StreamCase(frames=4, seed=seed, stamped=True) for seed in (2, 3)]
    return [StreamCase(frames=4)]


STREAM_RUNGS = {"stream": Rung("stream", streams_of, stream_cases)}


def wrong(name: str, where: str, right: str, instead: str, claim, regime: str = "counted") -> Wrong:
    return Wrong(name, "stream", "Stream", Edit(where, right, instead), claim, regime)


WRONG_STREAM = (
    wrong("a question goes to the memory itself", "asking.copies", "return memory.clone()", "return memory", UNASKED),
    wrong("the copy is taken when the answer is first read", "stream.Stream.ask", "return text(", "yield from text(",
          UNASKED),
    wrong("the copy that is kept stays as it was at the first question, but for its counters", "asking.fill",
          "in memory.tensors().items()", "in list(memory.tensors().items())[:2]", ANEW),
    wrong("two answers that are read in turn share one copy", "asking.Copies.of",
          "or self.lent() is not None", "", UNASKED),
    wrong("a batch's copies beyond the first are empty", "asking.fill", "x.copy_(theirs[name])",
          "x[0].copy_(theirs[name][0])", MANY),
    wrong("the picture is not ended before the question", "asking.closing", "config.vision_end_token_id",
          "config.bos_token_id", ANSWER),
    wrong("the token that ends the picture counts as padding", "asking.closing", ".scatter(1, end, True)", "", ANSWER),
    wrong("a question's places count all tokens", "asking.closing", "memory.next_position", "memory.seen", ANSWER),
    wrong("a question's places count its first token twice", "asking.closing", "inputs.positions + 1",
          "inputs.positions + 2", ANSWER),
    wrong("height and width go on counting over frames", "frames.FrameStep.__call__", "self.positions[0].fill_(time)",
          "self.positions[1:] += 3; self.positions[0].fill_(time)", WATCH),
    wrong("height and width start at the opening token's place", "frames.FrameStep.__init__",
          "FIRST + torch.stack(place)", "torch.stack(place)", WATCH),
    wrong("time stands still", "stream.Stream.watch", "math.floor(self._at(clock))", "0", WATCH),
    wrong("time counts frames, not seconds", "stream.Stream.watch", "math.floor(self._at(clock))", "self.frames_seen",
          WATCH, "stamped"),
    wrong("time rounds seconds to the nearest", "stream.Stream.watch", "math.floor(self._at(clock))",
          "round(self._at(clock))", WATCH, "stamped"),
    wrong("time counts the text before it twice", "stream.Stream.watch", "FIRST + ", "2 * FIRST + ", WATCH),
    wrong("fractions of seconds are summed", "stream.Stream._next", "(origin, count + 1)",
          "(origin + (count + 1 and 1 / self.fps), 0)", WATCH, "tenths"),
    wrong("time may run backwards", "stream.Stream._next", "if self._at(clock) < self.seconds:", "if False:", REFUSED),
    wrong("a frame that is refused has its time counted", "stream.Stream.watch", "clock = self._next(seconds)",
          "clock = self._clock = self._next(seconds)", REFUSED),
    wrong("frames are seen upside down", "frames.ready", "np.array(picture)",
          "np.array(picture.transpose(Image.Transpose.ROTATE_180))", WATCH),
    wrong("all colours are scaled as red is", "frames.FrameStep.__init__", "levels(settings)",
          "levels(settings)[[0, 0, 0]]", WATCH),
    wrong("frames made ready ahead come in another order", "frames.ahead", "waiting.popleft()", "waiting.pop()", AHEAD),
    wrong("a frame that cannot be opened ends what was made ready", "frames.ready", "except Exception as fault:",
          "except ZeroDivisionError as fault:", AHEAD),
    wrong("a stream that is resumed starts its clock anew", "stream.Stream.resume", 'tuple(notes["clock"])',
          "(0.0, -1)", SAVED),
    wrong("a stream that is resumed absorbs frames into another memory", "stream.Stream.resume",
          "stream._hold(memory)", "stream.memory = memory", SAVED),
)  # fmt: skip
