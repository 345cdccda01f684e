"""The client: one object, one server."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from interpedia.autointerp import Autointerp
from interpedia.catalogue import Corpora, Models, SaeManifest, Saes
from interpedia.explanations import Explanations
from interpedia.features import Features
from interpedia.jobs import Jobs
from interpedia.live import Live
from interpedia.publishing import PublishOptions, sae_files
from interpedia.schemas import Publication
from interpedia.search import Search
from interpedia.settings import Settings
from interpedia.transport import RetryPolicy, Transport
from interpedia.uploads import Uploads


class Client:
    """Talks to one Interpedia server.

    Args:
        base_url: where the gateway is.
        api_key: needed for writing only.
        retry: how patiently requests are repeated when the server is busy.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._transport = Transport(base_url, api_key, retry=retry)
        self.base_url = self._transport.base_url
        self.models = Models(self._transport)
        self.corpora = Corpora(self._transport)
        self.saes = Saes(self._transport)
        self.features = Features(self._transport)
        self.search = Search(self._transport)
        self.explanations = Explanations(self._transport)
        self.autointerp = Autointerp(self._transport)
        self.live = Live(self._transport)
        self.jobs = Jobs(self._transport)
        self.uploads = Uploads(self._transport)

    @classmethod
    def from_environment(cls) -> Self:
        """A client for `INTERPEDIA_URL` with the key `INTERPEDIA_API_KEY`."""
        settings = Settings.from_environment()
        return cls(settings.url, settings.api_key)

    def publish(self, folder: Path | str, **options: Unpack[PublishOptions]) -> Publication:
        """Uploads the SAE in `folder` and publishes it; `jobs.wait` follows the build of its dashboards.

        Raises:
            FileProblem: the folder holds no SAE.
            UploadInterrupted: continue with `resume=error.upload_id`.
            Invalid: the server found something wrong with the SAE; the error names field and fact.
            Unauthorized: the key is missing or wrong.
        """
        files = sae_files(Path(folder))
        upload = self.uploads.send(
            files, "sae", resume=options.get("resume"), progress=options.get("progress")
        )
        manifest: SaeManifest = {
            "model": options["model"],
            "corpus": options["corpus"],
            "saes": [{"name": options["name"], "hook": options["hook"], "upload": upload.id}],
        }
        if "n_tokens" in options:
            manifest["n_tokens"] = options["n_tokens"]
        if "release" in options:
            manifest["release"] = options["release"]
        return self.saes.publish(manifest)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Nothing to open: connections are made when needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        self.close()

    def __repr__(self) -> str:
        """Names the server and never the key."""
        return f"Client({self.base_url!r})"
