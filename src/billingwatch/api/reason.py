"""The reason that a person gives for a verdict or a mute."""

from typing import Annotated

import msgspec

PLAIN = r"^[^\x00]*$"

Reason = Annotated[
    str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^\s*[^\s\x00][^\x00]*$", description="For colleagues, and for tuning")
]
"""Not of blanks alone."""
