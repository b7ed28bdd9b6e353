"""Where a checkpoint is: a folder, or a sentence on how to get one."""

import os
import re
from pathlib import Path

TINY = Path(__file__).with_name("assets") / "tiny"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
RELEASED = {
    "hustvl/InfiniteVL": "chat and documents (stage 2)",
    "hustvl/InfiniteVL-LongSFT": "long video and streams (stage 3)",
}


def checkpoint_folder(source: str | os.PathLike) -> Path:
    """The folder that `source` names: its path; or, where no folder "tiny" is at hand, the project's small model."""
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source is a {type(source).__name__}; it should be a checkpoint's folder")
    if source == "tiny" and not Path(source).is_dir():
        return TINY
    path, name = Path(source), str(source).removesuffix("/")
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(f"{path} is a file; it should be the folder that holds the checkpoint")
    if HUB_NAME.fullmatch(name):
        known = {known.lower(): known for known in RELEASED}
        name = known.get(name.lower(), name)
        raise FileNotFoundError(
            f"{source} is not a folder on this machine; if it is meant as a name on the Hugging Face hub, download it "
            f"with: pip install huggingface_hub && hf download {name} --local-dir {name.split('/')[1]} "
            f"({'; '.join(f'{name} suits {what}' for name, what in RELEASED.items())})"
        )
    raise FileNotFoundError(f"{source} is not a folder; it should be one that holds a checkpoint")
