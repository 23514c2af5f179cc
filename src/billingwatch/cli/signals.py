"""How a command with something to clear away is told to stop."""

from __future__ import annotations

import signal


def stop_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does.

    asyncio turns SIGINT into a cancellation, if nobody has changed what it does; an exception raised wherever a signal finds the program may
    get lost there. What a shell starts in the background ignores SIGINT: that is taken back, since SIGTERM needs it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
