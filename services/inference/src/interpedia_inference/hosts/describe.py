"""What this host says of itself, to the registry and to who asks."""

from __future__ import annotations

from collections.abc import Sequence

from interpedia_inference.admission import Admission
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.model import ModelHost
from interpedia_inference.shelf.saes import SAEShelf
from interpedia_shared.contracts.live.capabilities import Capabilities, LiveLimits


class Description:
    """Knows where the facts are.

    Args:
        host: The model's state.
        admission: The queue.
        shelf: SAEs that are loaded.
        settings: Limits.
        routes: Paths that this host answers.
    """

    def __init__(
        self,
        host: ModelHost,
        admission: Admission,
        shelf: SAEShelf,
        *,
        settings: InferenceSettings,
        routes: Sequence[str],
    ) -> None:
        self._host = host
        self._admission = admission
        self._shelf = shelf
        self._settings = settings
        self._routes = list(routes)

    def now(self) -> Capabilities:
        """The facts of this moment."""
        settings = self._settings
        return Capabilities(
            model=settings.model,
            state=self._host.state,
            detail=self._host.detail,
            dtype=settings.model_dtype,
            device=settings.device_map or settings.device,
            routes=self._routes,
            limits=LiveLimits(
                max_tokens_per_text=self._host.max_text_tokens,
                max_new_tokens=settings.max_new_tokens,
                max_batch_tokens=settings.max_batch_tokens,
                max_queue=settings.max_queue,
                deadline_s=settings.deadline_s,
            ),
            saes_loaded=self._shelf.loaded(),
            queue_depth=self._admission.depth,
        )
