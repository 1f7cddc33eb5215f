"""An ASGI application as a backend of a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgw.asgi.types import App

__all__ = ["Backend"]


class Backend:
    """An ASGI application that serves a Service's port, with what it is allowed.

    Args:
        app: the application.
        max_concurrency: calls of it that run at once; more wait, at most as long as their route's
            time-out.
        disconnect_grace: seconds that a call may go on after its client left or its time was over.
            It is told at once (``http.disconnect``, and `ClientDisconnected` when it sends), and
            cancelled after this. ``None`` never cancels.
        lifespan: whether the application is told that it starts and ends. One that knows nothing of
            that is left alone.

    Raises:
        ValueError: a number is out of its range.
    """

    __slots__ = ("app", "disconnect_grace", "lifespan", "max_concurrency")

    def __init__(
        self,
        app: App,
        *,
        max_concurrency: int = 1_000,
        disconnect_grace: float | None = 5.0,
        lifespan: bool = True,
    ) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        if disconnect_grace is not None and not disconnect_grace >= 0:
            raise ValueError(f"disconnect_grace must not be negative: {disconnect_grace}")
        self.app: App = app
        self.max_concurrency: int = max_concurrency
        self.disconnect_grace: float | None = disconnect_grace
        self.lifespan: bool = lifespan
