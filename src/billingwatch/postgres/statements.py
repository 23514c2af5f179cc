"""Named SQL: statements live in a .sql file beside the one module that uses them.

-- name_of_statement --
-- Why it is as it is.
SELECT …
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --$", re.MULTILINE)


def load_statements(module_file: str, name: str) -> Mapping[str, str]:
    """Read the statements of `name`, a file in the folder of `module_file`; a name given twice is a ValueError."""
    path = Path(module_file).with_name(name)
    _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        message = f"{path} names a statement twice"
        raise ValueError(message)
    return MappingProxyType({key: _without_leading_comments(body) for key, body in zip(names, bodies, strict=True)})


def _without_leading_comments(body: str) -> str:
    lines = body.strip().splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines).rstrip().rstrip(";")
