"""The wrong table's rows for the whole model. See wrong.py."""

from types import ModuleType

from . import model_claims
from .catching import Rung, Wrong
from .editing import Edit
from .model_claims import ModelCase

EQUATION = model_claims.it_is_its_equation
ROWS = model_claims.each_row_gives_what_it_gives_alone
SPLIT = model_claims.any_split_between_pictures_gives_the_logits_of_one_call
DECODING = model_claims.decoding_equals_prefilling
NEXT = model_claims.the_next_position_is_the_largest_plus_one
CUT = model_claims.a_picture_cut_in_two_is_refused_and_changes_nothing


def models_of(module: ModuleType) -> dict[str, model_claims.Make]:
    """A maker of small models whose own class is the module's."""

    def make(case: ModelCase):
        model = model_claims.real(case)
        model.__class__ = module.InfiniteVL
        return model

    return {"model": make}


def model_cases(regime: str, dtype) -> list[ModelCase]:
    """`regime` is a side of padding, or whether the two tables are tied."""
    side = regime if regime in ("right", "inside") else "left"
    return [ModelCase(seed=seed, side=side, tied=regime != "untied") for seed in range(4)]


MODEL_RUNGS = {"model": Rung("model", models_of, model_cases)}


def wrong(name: str, where: str, right: str, instead: str, claim, regime: str = "left") -> Wrong:
    return Wrong(name, "model", "model", Edit(f"model.{where}", right, instead), claim, regime)


WRONG_MODEL = (
    wrong("the vectors come in backward order", "InfiniteVL.read", "vectors[which[:, piece]]",
          "vectors.flip(0)[which[:, piece]]", EQUATION),
    wrong("each pad gets its neighbour's vector", "InfiniteVL.read", "vectors[which[:, piece]]",
          "vectors.roll(1, 0)[which[:, piece]]", EQUATION),
    wrong("each row's vectors start from the first picture", "which_of", "pads.flatten().cumsum(0)",
          "pads.cumsum(1).flatten()", ROWS),
    wrong("only pictures get vectors, not videos", "InfiniteVL.read", "torch.where(pads[:, piece, None]",
          "torch.where((ids == self.config.image_token_id)[:, piece, None]", EQUATION),
    wrong("each piece's vectors start from the first", "InfiniteVL.read", "vectors[which[:, piece]]",
          "vectors[(pads[:, piece].cumsum(1) - 1).clamp(min=0)]", SPLIT),
    wrong("all pieces get the first one's positions", "InfiniteVL.read", "positions[:, :, piece]",
          "positions[:, :, : x.shape[1]]", SPLIT),
    wrong("positions start over with each call", "InfiniteVL.read", "None if memory is None else",
          "None and", DECODING),
    wrong("positions that are given are not used", "InfiniteVL.read", "if positions is None:", "if True:", NEXT),
    wrong("pictures count like words", "InfiniteVL.read", "find_positions(ids, grids,",
          "find_positions(ids.clamp(max=39), None,", EQUATION),
    wrong("positions count padding", "InfiniteVL.read", "start=start, mask=mask", "start=start", ROWS),
    wrong("the mask does not reach the layers", "InfiniteVL.read", "None if mask is None else mask[:, piece]",
          "None", ROWS),
    wrong("the memory is not continued", "InfiniteVL.read", "positions[:, :, piece], memory, real",
          "positions[:, :, piece], None, real", SPLIT),
    wrong("the last token counts, padding or not", "last_real", "if mask is None:", "if True:", ROWS, "right"),
    wrong("a row that ends in an early piece is lost", "last_real",
          "found if before is None else torch.where((last > 0)[:, None, None], found, before)", "found", ROWS, "right"),
    wrong("the last norm is missing", "InfiniteVL.score", "decoder.norm(x)", "x", EQUATION),
    wrong("an own table is not used", "InfiniteVL.score", "if self.config.tie_word_embeddings", "if True", EQUATION,
          "untied"),
    wrong("a picture's pads may be fewer than its cells", "InfiniteVL.see", ") != cells", ") > cells", CUT),
    wrong("pads without pixels pass as words", "InfiniteVL.see", "if pixels is None and ids.shape[1] == 1:",
          "if pixels is None:", CUT),
)  # fmt: skip
