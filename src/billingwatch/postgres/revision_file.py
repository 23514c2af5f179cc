"""The text of a revision's file, which `make migration` and the lab write."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent

IMPORTS = ("import sqlalchemy as sa", "from alembic import op")
BODY = " " * 4

FILE = '''"""{sentence}."""

from __future__ import annotations

{imports}

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
{up}


def downgrade() -> None:
{back}
'''


def revision_text(sentence: str, *, revision: str, down: str, up: str, back: str, imports: Sequence[str] = IMPORTS) -> str:
    """A revision that follows `down`; `up` and `back` are the statements of its functions."""
    return FILE.format(
        sentence=sentence, imports="\n".join(imports), revision=revision, down=down, up=indent(up, BODY), back=indent(back, BODY)
    )
