"""Files of events: JSON lines, indented objects, an array, Stripe's list; compressed or not, one file, a directory or stdin."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from billingwatch.errors import InputInvalid
from billingwatch.replay import split_events

STDIN = Path("-")
GZIP_MAGIC = b"\x1f\x8b"
SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
HINT = "give JSON lines, a JSON array, Stripe's list or single events; .gz and directories are read too"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a file, and where it is."""

    place: str
    body: bytes


def read_events(path: Path) -> list[Entry]:
    """Return the entries of a file, of all event files of a directory by name, or of stdin for `-`.

    Raises InputInvalid with the line and the reason when a file cannot be read; then nothing of any file is returned.
    """
    return [entry for name, document in _documents(path) for entry in _entries(name, document)]


def _documents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path == STDIN:
        yield "stdin", _decompressed("stdin", sys.stdin.buffer.read())
        return
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and one.name.endswith(SUFFIXES))
        if not files:
            raise InputInvalid(reason=f"{path} contains no file that ends in {', '.join(SUFFIXES)}", hint=HINT)
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputInvalid(reason=f"{file} cannot be read: {error.strerror}") from error
        yield str(file), _decompressed(str(file), content)


def _decompressed(name: str, content: bytes) -> bytes:
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputInvalid(reason=f"{name} is not complete gzip: {error}") from error


def _entries(name: str, document: bytes) -> Iterator[Entry]:
    found = _split(name, document)
    for line, body in found:
        if (reason := _fault(body)) is not None:
            raise InputInvalid(reason=f"{name}, line {line + reason.lineno - 1}: {reason.msg}; nothing is replayed", hint=HINT)
    yield from (Entry(place=f"{name}, line {line}", body=body) for line, body in found)


def _split(name: str, document: bytes) -> list[tuple[int, bytes]]:
    """Return the entries with the number of the line on which each begins."""
    try:
        bodies = split_events(document)
    except InputInvalid as error:
        objects = _objects(document)
        if objects is None:
            fault = _fault(document)
            where = f"line {fault.lineno}: {fault.msg}" if fault else str(error)
            raise InputInvalid(reason=f"{name}, {where}; nothing is replayed", hint=HINT) from error
        return objects
    if any(_fault(body) is not None for body in bodies) and (objects := _objects(document)) is not None:
        return objects
    return list(_numbered(document, bodies))


def _numbered(document: bytes, bodies: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    line, position = 1, 0
    for body in bodies:
        at = document.index(body, position)
        line += document.count(b"\n", position, at)
        yield line, body
        line += body.count(b"\n")
        position = at + len(body)


def _objects(document: bytes) -> list[tuple[int, bytes]] | None:
    """Return JSON objects that follow each other over many lines, as psql and jq print them; None when they are anything else."""
    decoder = json.JSONDecoder()
    try:
        text = document.decode()
        found: list[tuple[int, bytes]] = []
        position, line = 0, 1
        while (begin := _next_token(text, position)) < len(text):
            line += text.count("\n", position, begin)
            value, position = decoder.raw_decode(text, begin)
            if not isinstance(value, dict):
                return None
            found.append((line, text[begin:position].encode()))
            line += text.count("\n", begin, position)
    except (ValueError, RecursionError):
        return None
    return found or None


def _next_token(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _fault(body: bytes) -> json.JSONDecodeError | None:
    """Return why an entry is not JSON; None when it is, also where it is no event, which the replay refuses alone."""
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # The slower decoder names the line, and accepts what Stripe may sign: half a surrogate pair, great numbers.
        try:
            json.loads(body.decode(errors="replace"))
        except json.JSONDecodeError as error:
            return error
        except (ValueError, RecursionError):
            pass
    return None
