"""The name of a feature, as the whole platform writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from interpedia.errors import BadReference

# Ids hold no slash, so three segments are always model, SAE and index.
_PATHS = (
    re.compile(r"^/(?:v1/)?models/([^/]+)/saes/([^/]+)/features/(\d+)(?:/[a-z]+)?/?$"),
    re.compile(r"^/(?:api/feature/)?([^/]+)/([^/]+)/(\d+)/?$"),
)
_REFERENCE = re.compile(r"^([^/\s]+)/([^/\s]+)/(\d+)$")


@dataclass(frozen=True, order=True)
class FeatureRef:
    """`model/sae/index`, e.g. `gpt2-small/6-res-jb/650`."""

    model: str
    sae: str
    index: int

    def __post_init__(self) -> None:
        """Refuses what can be no feature.

        Raises:
            BadReference: an empty part, a slash in an id, or a negative index.
        """
        if not self.model or not self.sae or "/" in self.model + self.sae or self.index < 0:
            raise BadReference(f"{self.model!r}, {self.sae!r}, {self.index} cannot name a feature.")

    @staticmethod
    def parse(text: str | FeatureRef) -> FeatureRef:
        """Reads `model/sae/index`, or the URL of a feature on an Interpedia or Neuronpedia site.

        Raises:
            BadReference: it is neither.
        """
        if isinstance(text, FeatureRef):
            return text
        match = _REFERENCE.match(text.strip())
        if match is None and "://" in text:
            path = urlsplit(text.strip()).path
            match = next((found for pattern in _PATHS if (found := pattern.match(path))), None)
        if match is None:
            raise BadReference(f"{text!r} does not name a feature: write model/sae/index, or give its URL.")
        return FeatureRef(unquote(match[1]), unquote(match[2]), int(match[3]))

    @property
    def path(self) -> str:
        """The feature's path in the API."""
        return (
            f"/v1/models/{quote(self.model, safe='')}/saes/{quote(self.sae, safe='')}/features/{self.index}"
        )

    def __str__(self) -> str:
        """`model/sae/index`."""
        return f"{self.model}/{self.sae}/{self.index}"
