"""What follows what: every few steps one of streams, of one length after the other, and pictures in between.

A step of rows that are about equally long needs hardly any filling up, and such steps are of few shapes. Which step has
what depends on its number only.

    step        0         1             2         3               …          every second one of streams
    rows of     pictures  streams[0]    pictures  streams[1]
"""

from collections.abc import Sequence

from .examples import Example
from .sources import described


class Lessons:
    """Examples by number, `batch` to a step; the last of `every` steps has streams."""

    def __init__(self, pictures, streams: Sequence, *, batch: int, every: int):
        if not streams:
            raise ValueError("there are no streams; there should be at least one, for the steps that are theirs")
        self.pictures, self.streams = pictures, list(streams)
        self.batch, self.every = batch, every
        told = "; ".join(described(source) for source in (pictures, *self.streams))
        self.description = f"{batch} a step, one step in {every} of streams: {told}"

    def __getitem__(self, number: int) -> Example:
        step, row = divmod(number, self.batch)
        turn, place = divmod(step, self.every)
        if place < self.every - 1:
            return self.pictures[(turn * (self.every - 1) + place) * self.batch + row]
        again, which = divmod(turn, len(self.streams))
        return self.streams[which][again * self.batch + row]
