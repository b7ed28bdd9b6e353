"""What came of the demo: answers, right or wrong, near or far, and what the memory was; in words, and in numbers.

Near is a fact that was still in the window when the question about it came. What full attention would hold is computed,
since no such model runs here:

    keys and values    2 · layers · key and value heads · width of a head · 4 bytes · tokens
"""

from dataclasses import dataclass, field

from ..commands.stream_figures import Thinned
from ..config import DecoderConfig
from ..train.tiny_streams import NOT_SHOWN, TinyStream
from ..train.tiny_world import Sample
from .facts import Question


@dataclass(frozen=True)
class Answer:
    """What the model said to a question about a picture (a Sample) or about the stream (a Question)."""

    of: Sample | Question
    question: str
    said: str
    truth: str

    @property
    def right(self) -> bool:
        return self.said == self.truth


@dataclass(frozen=True)
class Reading:
    """The stream's memory after so many frames, and the median time of a frame since the reading before."""

    frames: int
    tokens: int
    nbytes: int
    seconds: float


@dataclass
class Watched:
    """What came of the stream. `sizes`: every number of bytes that its memory had."""

    stream: TinyStream
    answers: list[Answer] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    times: Thinned = field(default_factory=lambda: Thinned(4096))  # seconds, of a frame each
    sizes: set[int] = field(default_factory=set)
    untouched: bool = True  # by questions, bit for bit

    @property
    def constant(self) -> bool:
        return len(self.sizes) == 1 and self.untouched

    def near(self, answer: Answer) -> bool:
        """Whether the fact was still in the window when the question came."""
        return answer.of.asked.passed is not None and answer.of.asked.passed < self.stream.settings.window

    def far(self, answer: Answer) -> bool:
        return answer.of.asked.passed is not None and not self.near(answer)


def told(watched: Watched, answer: Answer) -> str:
    """How long ago a fact was shown, and what it replaced."""
    question = answer.of
    windows = watched.stream.windows(question.asked)
    if windows is None:
        return "in no frame so far"
    when = "shown just now" if windows == 0 else f"shown {windows:.1f} windows ago"
    before = ""
    if question.before:
        stale = ", which is what it said" if answer.said == question.before.answer else ""
        before = f"; it replaced {question.before.answer}{stale}"
    return f"{when}, {'in' if watched.near(answer) else 'beyond'} the window{before}"


def full_attention_nbytes(config: DecoderConfig, tokens: int) -> int:
    """What full attention in every layer would hold: keys and values of all tokens, in float32."""
    return 2 * len(config.layer_types) * config.num_key_value_heads * config.head_dim * 4 * tokens


def scores(seen: list[Answer], watched: Watched) -> list[str]:
    near, far = ([answer for answer in watched.answers if where(answer)] for where in (watched.near, watched.far))
    never = [answer for answer in watched.answers if answer.truth == NOT_SHOWN]
    oldest = max((watched.stream.windows(answer.of.asked) for answer in far), default=0)
    return [
        f"pictures: {rightly(seen)} right",
        f"the stream: {rightly(watched.answers)} right: {rightly(near)} about facts in the window, "
        f"{rightly(far)} about older ones (up to {oldest:.1f} windows ago), {rightly(never)} about boxes that "
        f"never came",
    ]


def rightly(answers: list[Answer]) -> str:
    return f"{sum(answer.right for answer in answers)} of {len(answers)}"


def memory_verdict(config: DecoderConfig, watched: Watched) -> str:
    sizes, tokens = watched.sizes, watched.readings[-1].tokens
    if len(sizes) > 1:
        return f"memory: NOT CONSTANT, from {min(sizes):,} to {max(sizes):,} bytes"
    if not watched.untouched:
        return "memory: NOT AS IT WAS after a question"
    return (
        f"memory: constant, {min(sizes):,} bytes from the first of {tokens:,} tokens to the last; keys and values of "
        f"full attention would be {full_attention_nbytes(config, tokens):,} (computed)"
    )
