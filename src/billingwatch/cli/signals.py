"""How a command with something to clear away is told to stop."""

from __future__ import annotations

import signal


def stop_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does.

    asyncio turns SIGINT into a cancellation; an exception raised wherever a signal finds the program may get lost there. Where SIGINT is
    ignored, as in what a shell starts in the background, there is but the exception.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    else:
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
