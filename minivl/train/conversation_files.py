"""Files of conversations, in the ShareGPT form that released training uses: found row by row, never held whole.

A file is a JSON list of rows, or a row a line. One pass over it notes where each row begins and ends and whether it can
be used; after that a row is read when its number comes up. A row that can't be used is skipped, counted and listed with
what is wrong with it. Where that is found out late, at a picture that is broken, the next row takes its place.

    key              also                 what
    messages         conversations        a list of turns, the last one an answer
      role           from                 user or human, assistant or gpt, system
      content        value                text, with <image> and <video> where one is shown
    images, videos   image, video         paths or addresses in the order of the tags, relative to `media`
    system                                the system's words, where no turn has them
"""

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from ..processor import Processor
from .examples import Example, example_of, turns
from .sources import order

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
TAG = re.compile(r"<(image|video)>")
SHAPE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)  # texts as a whole, and brackets outside of them
ADDRESS = re.compile(r"[a-z]+://")
LISTED = 20


class ConversationFile:
    """A source of examples, each round of them in another order. `faults` has what was wrong with each bad row."""

    def __init__(
        self,
        path: str | Path,
        processor: Processor,
        *,
        media: str | Path | None = None,
        longest: int | None = None,
        seed: int = 0,
    ):
        self.path, self.processor, self.longest, self.seed = Path(path), processor, longest, seed
        self.media = self.path.parent if media is None else Path(media)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} is not there; it should be a file of conversations")
        self.places, self.faults = [], {}
        for number, (start, end) in enumerate(rows(self.path), start=1):
            self.places.append((start, end))
            try:
                turns(self.messages(number))
            except (ValueError, TypeError, OSError) as fault:
                self.faults[number] = str(fault)
        self.good = [number for number in range(1, len(self.places) + 1) if number not in self.faults]
        if not self.good:
            raise ValueError(f"{self.path} has no row that can be used; {self.told()}")
        self.description = f"{self.path.name}, {len(self.good)} good rows, shuffled by {seed}, up to {longest} tokens"

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, number: int) -> Example:
        turn, place = divmod(number, len(self.good))
        shuffled = order(len(self.good), self.seed, turn)
        for step in range(len(self.good)):
            row = self.good[int(shuffled[(place + step) % len(self.good)])]
            try:
                made = example_of(self.processor, self.messages(row))
                if self.longest is not None and len(made.ids) > self.longest:
                    raise ValueError(f"it has {len(made.ids)} tokens; it should have at most {self.longest}")
                return made
            except (ValueError, TypeError, OSError) as fault:
                self.faults.setdefault(row, str(fault))
        raise ValueError(f"{self.path} has no row that can be used; {self.told()}")

    def told(self) -> str:
        """How many rows were skipped, and what was wrong with the first of them."""
        if not self.faults:
            return f"all {len(self.places)} rows are good"
        first = [f"row {row}: {fault}" for row, fault in sorted(self.faults.items())[:LISTED]]
        more = f"; and {len(self.faults) - LISTED} more" if len(self.faults) > LISTED else ""
        return f"{len(self.faults)} of {len(self.places)} rows skipped: {'; '.join(first)}{more}"

    def messages(self, number: int) -> list[dict]:
        """Row `number`, from 1, as the processor's messages."""
        start, end = self.places[number - 1]
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        try:
            row = json.loads(content)
        except ValueError as fault:
            raise ValueError(f"it is not readable as JSON: {fault}") from None
        return messages_of(row, self.media)


def rows(path: Path) -> Iterator[tuple[int, int]]:
    """Where each row begins and ends, in bytes: objects in a list, or objects one after another."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = re.search(rb"[^\s\xef\xbb\xbf]", content)
        outside = 1 if first and first[0] == b"[" else 0
        depth, start = 0, None
        for found in SHAPE.finditer(content):
            if found[0] in (b"{", b"["):
                if depth == outside and found[0] == b"{":
                    start = found.start()
                depth += 1
            elif found[0] in (b"}", b"]"):
                depth -= 1
                if depth == outside and start is not None:
                    yield start, found.end()
                    start = None
        if start is not None:
            yield start, len(content)  # cut off: it will not be readable


def messages_of(row: dict, media: Path) -> list[dict]:
    """A ShareGPT row as messages with parts, its files looked for."""
    if not isinstance(row, dict):
        raise TypeError(f"it is a {type(row).__name__}; it should be an object")
    said = row.get("messages") or row.get("conversations")
    if not isinstance(said, list) or not said:
        raise ValueError("it has no list of messages; it should have one as messages or conversations")
    waiting = {kind: files(row, kind, media) for kind in ("image", "video")}
    made = []
    for number, turn in enumerate(said, start=1):
        if not isinstance(turn, dict):
            raise TypeError(f"message {number} is a {type(turn).__name__}; it should be an object")
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; it should be one of {', '.join(ROLES)}")
        if not isinstance(text, str):
            raise TypeError(f"message {number} has a {type(text).__name__} as its content; it should be a text")
        shown = ROLES[role] == "user"
        made.append({"role": ROLES[role], "content": parts(text, waiting, number) if shown else text})
    if left := [f"{len(some)} {kind}s" for kind, some in waiting.items() if some]:
        raise ValueError(f"it has {' and '.join(left)} more than tags that show them")
    if isinstance(row.get("system"), str) and row["system"] and made[0]["role"] != "system":
        made.insert(0, {"role": "system", "content": row["system"]})
    return made


def parts(text: str, waiting: dict[str, list[str]], number: int) -> list[dict]:
    """A text cut at its tags, each replaced by the next file of its kind."""
    made, end = [], 0
    for tag in TAG.finditer(text):
        kind = tag[1]
        if not waiting[kind]:
            raise ValueError(f"message {number} has a {tag[0]} for which there is no {kind}")
        made += [{"type": "text", "text": text[end : tag.start()]}, {"type": kind, kind: waiting[kind].pop(0)}]
        end = tag.end()
    made.append({"type": "text", "text": text[end:]})
    return [part for part in made if part.get("text") != ""] or made[-1:]


def files(row: dict, kind: str, media: Path) -> list[str]:
    """A row's pictures or videos, each known to be there unless it is an address."""
    given = row.get(f"{kind}s") or row.get(kind) or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise TypeError(f"its {kind}s are {type(given).__name__}; they should be a list of paths")
    found = [one if ADDRESS.match(one) else str(media / one) for one in given]
    if missing := [one for one in found if not ADDRESS.match(one) and not Path(one).is_file()]:
        raise FileNotFoundError(f"its {kind} {missing[0]} is not there")
    return found
