"""A place for figures, made ready before minutes of measuring rather than after."""

import os
from pathlib import Path


def make_ready(path: Path, *suffixes: str) -> None:
    """Make the folder that path is to be written into; refuse a path that can't be written, or of another kind."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; it should be a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} should have a name that ends in {' or '.join(suffixes)}")
    for folder in path.absolute().parents:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{path} can't be written: {folder} is not a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"{path} can't be written: permission denied")
