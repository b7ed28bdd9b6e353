"""The whole model: pictures and words in, next-word scores out.

The vision tower turns each picture into a run of vectors; they take the places of the picture's pad tokens among the
embedded words; the decoder reads the row; its last norm and the embedding table, used backwards, score every word of
the vocabulary. Parameters have the released checkpoint's names and shapes.

    x = E[ids], with the tower's vectors where ids are pads        logits = norm(decoder(x)) · Eᵀ

    code        shape                    dtype     what
    ids         [B, T]                   int64     tokens; a picture or a video is a run of pads, one a merged cell
    pixels      [patches, 3·2·14·14]     float     patches of all pictures and videos, in order of appearance
    grids       [pictures, 3]            int64     (time, rows, columns) of each, in patches
    vectors     [cells, D]               float     instead of pixels: what the tower has made of them before
    positions   [3, B, T]                int64     see ops/rotary.py; found from ids and grids where not given
    mask        [B, T]                   bool      True where a token is real; padding is inert
    logits      [B, T or 1, vocabulary]  weights'  with last_only: of each row's last real token
"""

import torch
from torch import Tensor, nn

from .captured import recording
from .config import Config
from .layers import fast
from .layers.decoder import HybridBlock, pieces
from .layers.merged import merged
from .layers.norm import RMSNorm
from .layers.vision import VisionTower
from .memory import Memory
from .ops import checks
from .ops.rotary import positions as find_positions


class Decoder(HybridBlock):
    """The language model: a table of words, the layers, and the last norm."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Body(nn.Module):
    """Eyes and language, side by side; only here for the names of the parameters."""

    def __init__(self, config: Config):
        super().__init__()
        self.visual = VisionTower(config.vision)
        self.language_model = Decoder(config)


class InfiniteVL(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Body(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            nn.init.normal_(self.lm_head.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        return self.model.language_model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.language_model.norm.weight.dtype

    def new_memory(self, batch_size: int = 1, *, longest_write: int | None = None, room: int | None = None) -> Memory:
        """An empty memory for this model; see Memory for `longest_write` and, with full attention, `room`."""
        return self.model.language_model.new_memory(batch_size, longest_write=longest_write, room=room)

    def fuse(self) -> "InfiniteVL":
        """Bring weights into the shapes that are fastest to multiply by. Inference only; the answers stay the same."""
        self.model.visual.fuse()
        self.model.language_model.fuse()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the weights lay in before
        return self

    def forward(self, ids: Tensor, *, last_only: bool = False, **arguments) -> Tensor:
        """The scores of every token's next word, or with `last_only` of each row's last; see `read`."""
        return self.score(self.read(ids, last_only=last_only, **arguments))

    def read(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        pixels: Tensor | None = None,
        grids: Tensor | None = None,
        memory: Memory | None = None,
        mask: Tensor | None = None,
        vectors: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Read `ids`, after all that `memory` holds, into the memory; the last layer's vectors [B, T or 1, D].

        Any split over calls gives the same vectors. Long calls go through the layers in pieces of the memory's longest
        write, so that the peak stays flat. With `vectors` no picture is looked at; `grids` then only serves to find
        positions.
        """
        checks.tensor("ids", ids, ("B", "T"), torch.int64)
        B, T = ids.shape
        if T == 0:
            raise ValueError("ids has no tokens; it should have at least one")
        if mask is not None:
            checks.tensor("mask", mask, (B, T), torch.bool)
            ids = ids.masked_fill(~mask, self.config.bos_token_id)  # whatever padding holds, pads included, ends here
        if not ids.is_cuda and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:  # a GPU would have to wait
            raise ValueError(
                f"ids goes from {ids.min()} to {ids.max()}; tokens go from 0 to {self.config.vocab_size - 1}"
            )
        if memory is not None:
            memory.admit(self.config, B, T)
        seen = self.see(ids, pixels, grids, vectors)
        if positions is None:
            start = None if memory is None else memory.next_position
            positions, _ = find_positions(ids, grids, config=self.config, start=start, mask=mask)
        checks.tensor("positions", positions, (3, B, T), torch.int64)

        decoder, last, out = self.model.language_model, None, []
        for piece in pieces(T, memory):
            real = None if mask is None else mask[:, piece]
            x = decoder.embed_tokens(ids[:, piece])
            if seen is not None:
                vectors, pads, which = seen
                x = torch.where(pads[:, piece, None], vectors[which[:, piece]], x)
            x = decoder.write(x, positions[:, :, piece], memory, real)
            if last_only:
                last = last_real(x, real, last)
            else:
                out.append(x)
        if memory is not None:
            memory.advance(positions, mask)
        return last if last_only else torch.cat(out, dim=1)

    def see(
        self, ids: Tensor, pixels: Tensor | None, grids: Tensor | None, vectors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The pictures' vectors, where `ids` has pads, and which vector each pad gets: one a pad, no more, no less."""
        if vectors is not None:
            if pixels is not None:
                raise ValueError("pixels and vectors are both given; give the pictures' pixels, or their vectors")
            checks.tensor("vectors", vectors, ("cells", self.config.hidden_size))
            checks.same_device(ids=ids, vectors=vectors)
            vectors = vectors.to(self.model.language_model.embed_tokens.weight.dtype)
        elif (pixels is None) != (grids is None):
            raise ValueError("pixels and grids belong together; give both, or neither")
        elif pixels is None and ids.shape[1] == 1:
            return None  # decoding: a look at the token would make the device wait
        pads = (ids == self.config.image_token_id) | (ids == self.config.video_token_id)
        if pixels is not None:
            vectors = self.model.visual(pixels.to(self.dtype), grids)
        cells = 0 if vectors is None else len(vectors)
        if not recording(ids) and (found := int(pads.sum())) != cells:  # who records has counted
            raise ValueError(
                f"ids has {found} picture pads and the pictures have {cells} cells; they should be as many, "
                f"and all pads of a picture should come in one call, together with its pixels or vectors"
            )
        return None if vectors is None else (vectors, pads, which_of(pads))

    def score(self, x: Tensor) -> Tensor:
        """norm(x) · Eᵀ, or by a table of its own where the two are not tied."""
        decoder = self.model.language_model
        table = merged(decoder.embed_tokens if self.config.tie_word_embeddings else self.lm_head)
        if (kernels := fast.ready(decoder, x)) and fast.is_vector(kernels, self.config, x):
            return fast.matvec(kernels, x, table, norm=decoder.norm)
        return fast.product(decoder.norm(x), table)


def which_of(pads: Tensor) -> Tensor:
    """The number of each pad, counted through all rows."""
    return (pads.flatten().cumsum(0) - 1).clamp(min=0).view_as(pads)


def last_real(x: Tensor, mask: Tensor | None, before: Tensor | None) -> Tensor:
    """Each row's last real token in this piece [B, 1, D]; if it has none here, the one found before."""
    if mask is None:
        return x[:, -1:]
    time = torch.arange(1, x.shape[1] + 1, device=x.device)
    last = (mask * time).amax(1)  # 0 where there is none
    found = x.gather(1, (last - 1).clamp(min=0)[:, None, None].expand(-1, 1, x.shape[-1]))
    return found if before is None else torch.where((last > 0)[:, None, None], found, before)
