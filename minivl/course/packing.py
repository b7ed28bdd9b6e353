"""What a student hands in: the files that count, packed with a hash of each, and read back without trust.

A hand-in is a student's folder as it is, or a zip of its files with `handin.json`. Nothing is unpacked to disk: the
named files are read, and no others.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .making import MARK
from .sources import Tree

PACKED = "handin.json"
LARGEST = 1_000_000  # bytes of one file


@dataclass(frozen=True)
class HandIn:
    """What was handed in. `about` is what the folder says of itself; `note` what is odd about it."""

    name: str
    tree: Tree
    about: dict
    note: str = ""


def pack(folder: Path, target: Path) -> list[str]:
    """Write the zip; returns the files in it."""
    about = described(folder)
    texts = {path: _text(folder / path, path) for path in about["hand in"]}
    about["sha256"] = {path: _hash(text) for path, text in texts.items()}
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is not a folder; the hand-in can't be written into it")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PACKED, json.dumps(about, indent=2))
        for path, text in texts.items():
            archive.writestr(path, text)
    return list(texts)


def described(folder: Path) -> dict:
    """What a student's folder says of itself."""
    for path in (folder / MARK, folder / PACKED):
        if path.is_file():
            return _about(path.read_bytes(), path)
    raise FileNotFoundError(f"{folder} has no {MARK}; it should be a folder that `assignment make` wrote")


def _about(content: bytes, path) -> dict:
    try:
        about = json.loads(content)
        known = {"assignment": str, "variant": int, "version": str, "hand in": list}
        fits = all(isinstance(about[name], kind) for name, kind in known.items())
        fits = fits and all(isinstance(name, str) and _inside(name) for name in about["hand in"])
        fits = fits and len(about["hand in"]) < 100 and about["variant"] >= 0
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise ValueError(f"{path} is damaged: it should be as `assignment make` wrote it")
    return about


def _inside(path: str) -> bool:
    return not path.startswith("/") and ":" not in path and "\\" not in path and ".." not in path.split("/")


def hand_ins(source: Path) -> list[HandIn | tuple[str, str]]:
    """One hand-in, or those in a folder of many; one that can't be read is its name and the fault."""
    if source.is_file():
        return [read_zip(source)]
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is neither a folder nor a packed hand-in")
    if is_hand_in(source):
        return [read_folder(source)]
    found = []
    for path in sorted(source.iterdir()):
        if path.suffix != ".zip" and not path.is_dir():
            continue
        try:
            found.append(read_zip(path) if path.is_file() else read_folder(inner(path), name=path.name))
        except (OSError, ValueError) as fault:
            found.append((path.stem if path.is_file() else path.name, str(fault)))
    if not any(isinstance(one, HandIn) for one in found):
        raise FileNotFoundError(f"{source} is no student's folder and no packed hand-in, and holds none")
    return found


def is_hand_in(folder: Path) -> bool:
    return (folder / MARK).is_file() or (folder / PACKED).is_file()


def inner(folder: Path) -> Path:
    """The folder itself, or the one folder in it that is a hand-in: a folder ada with A2 in it, say."""
    inside = [path for path in folder.iterdir() if path.is_dir() and is_hand_in(path)]
    return inside[0] if len(inside) == 1 and not is_hand_in(folder) else folder


def read_folder(folder: Path, *, name: str = "") -> HandIn:
    about = described(folder)
    home = folder.resolve()
    there = [path for path in about["hand in"] if (folder / path).is_file()]
    if outside := [path for path in there if home not in (folder / path).resolve().parents]:
        raise ValueError(f"{folder} has {outside[0]}, which is a link out of it")
    tree = {path: _text(folder / path, path) for path in there}
    return HandIn(name or folder.resolve().name, tree, about, _changed(tree, about))


def read_zip(path: Path) -> HandIn:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename: info for info in archive.infolist()}
            if PACKED not in names:
                raise ValueError(f"{path} has no {PACKED}; it should be what `assignment pack` wrote")
            if too_large := [name for name, info in names.items() if info.file_size > LARGEST]:
                raise ValueError(f"{path} has {too_large[0]} of more than {LARGEST:,} bytes")
            about = _about(archive.read(PACKED), f"{path}: {PACKED}")
            content = {name: archive.read(name) for name in about["hand in"] if name in names}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as fault:
        raise ValueError(f"{path} is no zip, or is damaged: {fault}") from None
    tree = {name: _decoded(text, name) for name, text in content.items()}
    return HandIn(path.stem, tree, about, _changed(tree, about))


def _changed(tree: Tree, about: dict) -> str:
    """Files of a packed hand-in that are not what was packed, told."""
    hashes = about.get("sha256")
    changed = [name for name, text in tree.items() if isinstance(hashes, dict) and hashes.get(name) != _hash(text)]
    return f"changed after packing: {', '.join(changed)}" if changed else ""


def _text(path: Path, name: str) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it should be handed in")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST:,} bytes")
    return _decoded(path.read_bytes(), name)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
