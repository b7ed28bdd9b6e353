"""The fonts of the tiny world: those that matplotlib and Pillow bring with them, so that no system font is needed.

DejaVu, STIX and Computer Modern lie in matplotlib's folder, and Aileron is in Pillow. They are used where they lie;
nothing is copied. Of Computer Modern's italics only cmti10 is here: cmmi10's figures hang below the line, and cmsy10
and cmex10 hold signs.

The unseen ones are kept for the held-out split. Two are designs of which training sees nothing (Aileron, the
typewriter cmtt10); of the other three it sees relatives, in another weight or slope.
"""

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

AILERON = "Aileron"
SEEN = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmti10",
)
UNSEEN = (AILERON, "cmtt10", "STIXGeneralBol", "DejaVuSerif-Italic", "DejaVuSansMono-Bold")


@lru_cache(maxsize=128)  # each holds a file open
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of SEEN or UNSEEN, `size` pixels to the em."""
    if name == AILERON:
        return ImageFont.load_default(size)
    import matplotlib  # takes a while, and Aileron does without

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; it should have come with matplotlib")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
