"""Which files a person means by a folder or a glob, and what those files hold.

Each real folder and each real file is met once, however many links lead to it, and nothing but regular files is ever
opened: a folder may hold links to itself, pipes, and devices that never end.
"""

from __future__ import annotations

import difflib
import fnmatch
import glob
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hf_accel import terminal
from hf_accel.data.images import HEIC_EXTRA, IMAGE_SUFFIXES
from hf_accel.data.urls import is_url
from hf_accel.errors import UserError, did_you_mean
from hf_accel.files import RUN_MARK

# Endings of photographs and pictures that Pillow does not read, or only with a plug-in.
UNREAD_SUFFIXES = (
    *(".avif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr"),
    *(".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw"),
    *(".dcm", ".dds", ".emf", ".eps", ".exr", ".fits", ".hdr", ".ico", ".nii", ".pcx", ".pfm", ".psd", ".sgi"),
    *(".svg", ".svgz", ".tga", ".wmf", ".x3f", ".xcf"),
)
HASHED_BYTES = 4 << 30  # data up to this size in all are told apart by their content: seconds to read


@dataclass
class Listing:
    """The files below a folder, as paths relative to it, with "/" between their parts."""

    files: list[str] = field(default_factory=list)  # sorted; links to nowhere are among them: unreadable when read
    repeated: list[str] = field(default_factory=list)  # links to files and folders that are listed by another path
    special: list[str] = field(default_factory=list)  # pipes, sockets and devices
    runs: list[str] = field(default_factory=list)  # folders in which training left its files

    def notes(self) -> list[str]:
        """What a person should know about entries that are not among the files."""
        notes = []
        if self.repeated:
            notes.append(f"{_example(self.repeated)} lead to folders above, or to files that are read by another path")
        if self.special:
            notes.append(f"{_example(self.special)} are not regular files (pipes, sockets, devices): not read")
        if self.runs:
            notes.append(f"{_example(self.runs)} are folders of runs: not read")
        return notes


def _example(names: list[str]) -> str:
    return f"{len(names):,} entries ({printable(names[0])}{', …' if len(names) > 1 else ''})"


def list_files(folder: Path) -> Listing:
    """All files below a folder.

    Hidden files and folders (`.ipynb_checkpoints`, `._photo.jpg`, `__MACOSX`) are left out, and so are the folders of runs,
    which `hf-accel train .` leaves below the images. Links are followed after
    everything else is listed, so that a file keeps its own path; a link to a folder above is not followed. Names are text,
    not Path objects: a folder of a million images is listed several times faster.

    Raises:
        UserError: a folder may not be listed.
    """
    listing = Listing()
    seen = {_identity(os.stat(parent)) for parent in folder.resolve().parents}
    seen_files: set[tuple[int, int]] = set()
    pending = [("", str(folder))]
    while pending:
        links = []
        while pending:
            prefix, path = pending.pop()
            identity = _identity(os.stat(path))
            if identity in seen:
                listing.repeated.append(prefix)
                continue
            seen.add(identity)
            if prefix and os.path.exists(os.path.join(path, RUN_MARK)):
                listing.runs.append(prefix)
                continue
            folders = []
            for entry in _entries(path):
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if entry.is_symlink():
                    links.append((name, entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append((name, entry.path))
                else:
                    _add_file(name, entry.stat(follow_symlinks=False), listing, seen_files)
            pending += reversed(folders)
        for name, path in sorted(links):
            _follow(name, path, listing, pending, seen_files)
        pending.reverse()
    listing.files.sort()
    return listing


def _entries(path: str) -> list[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(path)}: the folder cannot be listed: {error.strerror}") from error


def _follow(name: str, path: str, listing: Listing, pending: list, seen_files: set[tuple[int, int]]) -> None:
    try:
        status = os.stat(path)
    except OSError:  # it leads nowhere, or to itself
        listing.files.append(name)
        return
    if stat.S_ISDIR(status.st_mode):
        pending.append((name, path))
    else:
        _add_file(name, status, listing, seen_files)


def _add_file(name: str, status: os.stat_result, listing: Listing, seen_files: set[tuple[int, int]]) -> None:
    identity = _identity(status)
    if not stat.S_ISREG(status.st_mode):
        listing.special.append(name)
    elif identity in seen_files:
        listing.repeated.append(name)
    else:
        seen_files.add(identity)
        listing.files.append(name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_image_file(path: str | Path) -> bool:
    return _suffix(path) in IMAGE_SUFFIXES


def is_unread_picture(path: str | Path) -> bool:
    """Whether an ending is that of a picture in a format that cannot be read here."""
    suffix = _suffix(path)
    return suffix in UNREAD_SUFFIXES and suffix not in IMAGE_SUFFIXES


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()


def describe_unread(names: Iterable[str]) -> str:
    """Endings and counts of unread pictures, and what would read them: ".heic (12): pip install ..."."""
    counts = Counter(_suffix(name) for name in names)
    listed = ", ".join(f"{suffix} ({count:,})" for suffix, count in sorted(counts.items()))
    is_heic = any(suffix.startswith((".hei", ".hif")) for suffix in counts)
    return f"{listed}: {HEIC_EXTRA if is_heic else 'convert them to JPEG or PNG'}"


def printable(name: str) -> str:
    """A file's name for a message: bytes that are not UTF-8 as escapes, which can be printed."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def require_utf8(where: str, names: Iterable[str]) -> None:
    """Refuse names that no table, report or model could hold.

    Raises:
        UserError: a name is not UTF-8.
    """
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where}: the name {printable(name)} is not UTF-8. Expected a name that can be shown in reports and kept in "
                "the model: rename it."
            ) from error


def first_image(folder: Path) -> Path | None:
    """An image file below a folder, found without listing all of them; None where there is none."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if is_image_file(name) and not is_hidden(name):
                return Path(place, name)
    return None


def load_images(paths: Iterable[str]) -> list[Path | str]:
    """The images that files, folders (searched to their depth), globs and URLs stand for, each once, in order.

    A file named outright is taken whatever its ending. A URL stays text; nothing is fetched.

    Raises:
        UserError: an argument does not lead to an image file.
    """
    found: dict[object, Path | str] = {}
    for text in paths:
        if is_url(text):
            found.setdefault(text, text)
            continue
        for match in _images_of(text):
            found.setdefault(_identity(os.stat(match)) if match.exists() else match, match)
    return list(found.values())


def listed_images(lines: Iterable[str]) -> Iterator[Path | str]:
    """The same for a list with one name per line, read line by line, however long it is.

    A name that leads nowhere is passed on as a path: it is one unreadable image among others.
    """
    for line in lines:
        name = line.rstrip("\r\n")
        if not name:
            continue
        try:
            yield from load_images([name])
        except UserError:
            yield Path(name)


def _images_of(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        matches, unread = _pictures(path / name for name in list_files(path).files)
        problem = f"the folder holds no image file ({', '.join(IMAGE_SUFFIXES)})"
    elif path.exists():
        if not path.is_file():
            raise UserError(f"{text}: is not a regular file (a pipe, socket or device). Expected an image file.")
        matches, unread, problem = [path], [], ""
    else:
        matches, unread = _pictures(matching_files(str(path)))
        problem = (
            "no image file matches this pattern"
            if glob.has_magic(text)
            else f"no such file or folder{near_names(path)}"
        )
    if not matches:
        problem += f"; pictures that cannot be read: {describe_unread(map(str, unread))}" if unread else ""
        raise UserError(f"{text}: {problem}. Expected an image, a folder of images, a glob such as '*.jpg', or a URL.")
    return matches


def near_names(path: Path) -> str:
    """Names close to a mistyped one, to end a sentence; empty where there are none."""
    if not path.parent.is_dir():
        return f"; {printable(str(path.parent))} does not exist either"
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if not is_hidden(entry.name)]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(str(path.with_name(name)) for name in near)}?)" if near else ""


def is_local_name(name: str) -> bool:
    """Whether a name that is not a folder was meant as one: a Hub id is `name` or `owner/name`, nothing else."""
    parts = name.split("/")
    looks_local = name.startswith((".", "~")) or "\\" in name or "" in parts or len(parts) > 2
    return looks_local or (len(parts) == 2 and Path(parts[0]).is_dir())


def neighbouring_folders(path: Path) -> str:
    """What ends a message about a folder that does not exist: names like it, or which of its parents is missing, too."""
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either; the current folder is {Path.cwd()}."
    folders = [p.name for p in path.parent.iterdir() if p.is_dir() and not is_hidden(p.name)]
    return did_you_mean(path.name, folders) if folders else f"{path.parent.resolve()} holds no folder."


def _pictures(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The readable image files, and the pictures in formats that are not read."""
    paths = list(paths)
    return [p for p in paths if is_image_file(p)], [p for p in paths if is_unread_picture(p)]


def matching_files(pattern: str) -> list[Path]:
    """What a glob matches, in order. `**` is looked up in a list of files: the library would follow links in circles."""
    parts = pattern.replace(os.sep, "/").split("/")
    if "**" not in parts:
        return [Path(name) for name in sorted(glob.glob(pattern)) if os.path.isfile(name) or not os.path.exists(name)]
    start = parts.index("**")
    base = "/".join(parts[:start]) or ("/" if start else ".")
    folders = [name for name in (glob.glob(base) if glob.has_magic(base) else [base]) if os.path.isdir(name)]
    return sorted(
        Path(folder, name)
        for folder in folders
        for name in list_files(Path(folder)).files
        if _fits(name.split("/"), parts[start:])
    )


def _fits(names: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path fit those of a glob, of which `**` is any number of folders."""
    if not pattern or not names:
        return not names and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(names, pattern[1:]) or _fits(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def files_fingerprint(names: list[str], paths: list[str], salt: Iterable[str] = ()) -> tuple[str, np.ndarray | None]:
    """A fingerprint of files, the same wherever they are.

    Args:
        names: the names of the files in their data set.
        salt: texts that belong to the content, such as labels stated elsewhere.
    Returns:
        A digest of the names and of what the files hold (of their size and date, where they are too large to be read),
        and (N,) uint64 content numbers from `content_number`, None where the files are too large.
    Raises:
        UserError: a path leads to a pipe, socket or device.
    """
    digest = hashlib.sha256()
    # A link to nowhere is an unreadable image, to be treated as any other when it is read.
    stats = [
        os.stat(path) if os.path.exists(path) else os.lstat(path) if os.path.islink(path) else None for path in paths
    ]
    for path, status in zip(paths, stats, strict=True):
        if status and not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise UserError(f"{path}: is not a regular file. Expected an image file: remove it from the data.")
    by_content = sum(status.st_size for status in stats if status) <= HASHED_BYTES
    numbers = []
    with terminal.bar(len(names), "reading files", "file") as bar:
        for name, path, status in zip(names, paths, stats, strict=True):
            digest.update(f"{name}\0{status.st_size if status else 'missing'}\0".encode())
            if by_content:
                content = _content_digest(path)
                digest.update(content)
                numbers.append(content_number(content) if status and status.st_size and len(content) == 32 else 0)
            elif status:
                digest.update(f"{status.st_mtime_ns}\n".encode())
            bar.update()
    for text in salt:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest(), np.array(numbers, dtype=np.uint64) if by_content else None


def content_number(digest: bytes) -> int:
    """64 bits of the SHA-256 of an image's file, equal for equal files; 0 stands for no content."""
    return int.from_bytes(digest[:8], "little")


def _content_digest(path: str) -> bytes:
    """SHA-256 of a file; the number of the error where it cannot be read, as its image cannot."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return str(error.errno).encode()
