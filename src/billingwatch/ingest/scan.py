"""Members of a JSON object whose text a parser refuses: broken escapes, deep nesting, cut off, not UTF-8.

The scanner reads tokens, not grammar. It does not recurse, and each byte is matched a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

Reader = Callable[[bytes], object]
"""Returns the value of a member's JSON text, or None when it is not usable."""

_BOM = b"\xef\xbb\xbf"
_OPENING = re.compile(rb"\s*\{")
# The possessive quantifiers keep a string without an end linear. Such a string extends to the end of the text.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_MEMBER = re.compile(rb'(?P<string>%s)|(?P<open>[{\[])|(?P<close>[}\]])|(?P<scalar>[^\s",:{}\[\]]+)' % _STRING, re.DOTALL)
_NESTING = re.compile(rb"%s|(?P<open>[{\[]+)|(?P<close>[}\]]+)" % _STRING, re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_name = msgspec.json.Decoder(str)


def read_members(text: bytes, readers: Mapping[str, Reader]) -> dict[str, object]:
    """Return the usable values of the object's members; of equal names the last usable one counts."""
    found: dict[str, object] = {}
    for name, start, end in _members(text):
        reader = readers.get(name)
        if reader is not None and (value := reader(text[start:end])) is not None:
            found[name] = value
    return found


def reader_of(kind: object) -> Reader:
    """Make a reader that accepts values of `kind`, a type that msgspec decodes."""
    decoder = msgspec.json.Decoder(kind)

    def read(text: bytes) -> object:
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None

    return read


def _members(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the name and the extent of each member's value."""
    opening = _OPENING.match(text, len(_BOM) if text.startswith(_BOM) else 0)
    if opening is None:
        return
    position, name, value_at = opening.end(), None, -1
    while token := _MEMBER.search(text, position):
        position = token.end()
        kind = token.lastgroup
        if kind == "close":
            return
        if kind == "string" and token.start() != value_at and (colon := _COLON.match(text, position)):
            name, position = _decoded(token[0]), colon.end()
            value_at = position
            continue
        if kind == "open":
            position = _end_of_nesting(text, position)
        if name is not None:
            yield name, token.start(), position
        name = None


def _end_of_nesting(text: bytes, position: int) -> int:
    depth = 1
    for token in _NESTING.finditer(text, position):
        length = token.end() - token.start()
        if token.lastgroup == "open":
            depth += length
        elif token.lastgroup == "close":
            if length >= depth:
                return token.start() + depth
            depth -= length
    return len(text)


def _decoded(string: bytes) -> str | None:
    try:
        return _name.decode(string)
    except (msgspec.DecodeError, ValueError):
        return None
