"""What the demo's features are about: explained by rules, scored, and searchable by meaning; without any key.

It runs beside the services after the demo is there. The jobs are the server's: stopping this stops none of
them, and the next run follows what an earlier one began.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from interpedia import Client, InterpediaError, Job, JobFailed, console
from interpedia.settings import Settings
from interpedia_local.demo import MODEL, SAES, SHOWN, TYPICAL

RULES = ("token-lookup",)
"""What a feature fires on. What it promotes is found by search without an explanation."""
RULE_SCORER = "rule"
OTHERS_SAMPLE = 300
"""Features of each SAE but the shown one, of which all of middling density are explained: rarer ones have few
examples in the demo, denser ones say little by their tokens, and it is to take minutes, not hours."""
LLM_ENDPOINT = "default"
LLM_METHOD, LLM_SCORER = "examples", "detection"
LLM_FEATURES, LLM_TOKENS = 24, 400_000
"""How many features the LLM explains, and the tokens that it may take at most."""


@dataclass(frozen=True)
class Order:
    """One job to be: `label` is what its progress line says."""

    label: str
    sae: str
    methods: tuple[str, ...]
    scorers: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def is_of(self, job: Job) -> bool:
        """Whether an earlier run made this job."""
        asked = (job.to_dict().get("params") or {}).get("request") or {}
        methods = tuple(method.get("name") for method in asked.get("methods", ()))
        return asked.get("saes") == [self.sae] and methods == self.methods


@dataclass(frozen=True)
class DemoExplanations:
    """The explaining of one demo."""

    client: Client
    model: str = MODEL

    def make(self) -> None:
        """Explains what is not explained yet, the SAE that is shown first.

        Raises:
            InterpediaError: the server refused, or a job failed.
        """
        orders = self._orders()
        begun = list(self.client.jobs.list(kind="explain"))
        jobs = [next((job for job in begun if order.is_of(job)), None) for order in orders]
        if all(job is not None and job.state == "succeeded" for job in jobs):
            return
        console.write("Explaining the demo's features; all else can be used meanwhile.")
        for order, job in zip(orders, jobs, strict=True):
            self._follow(order, job)
        query = f"q=family+members&mode=semantic&model={self.model}&sae={SHOWN}"
        console.write(f"Search by meaning: {self.client.base_url}/v1/search?{query}")

    def _orders(self) -> list[Order]:
        first = [SHOWN, *(name for name in SAES if name != SHOWN)]
        orders = [self._by_rules(name) for name in first]
        endpoints = {str(each.to_dict().get("name")) for each in self.client.autointerp.endpoints()}
        if LLM_ENDPOINT in endpoints:
            orders.append(self._by_llm())
        return orders

    def _by_rules(self, name: str) -> Order:
        options: dict[str, Any] = {**TYPICAL} if name == SHOWN else {**TYPICAL, "sample": OTHERS_SAMPLE}
        return Order(f"Explaining {name}", f"{self.model}/{name}", RULES, (RULE_SCORER,), options)

    def _by_llm(self) -> Order:
        """Some features of middling density, within a budget."""
        options = {
            **TYPICAL,
            "sample": LLM_FEATURES,
            "endpoint": LLM_ENDPOINT,
            "budget": {"tokens": LLM_TOKENS},
        }
        label = f"Asking the LLM about {LLM_FEATURES} features, for at most {LLM_TOKENS:,} tokens"
        return Order(label, f"{self.model}/{SHOWN}", (LLM_METHOD,), (LLM_SCORER,), options)

    def _follow(self, order: Order, job: Job | None) -> None:
        """Waits with one progress line; what an earlier run left failed is tried again."""
        if job is not None and job.state == "succeeded":
            return
        if job is None:
            work = self.client.autointerp.explain(
                order.methods, order.scorers, saes=[order.sae], **order.options
            )
            job = work.job
        elif job.is_over:
            job = self.client.jobs.retry(job.id)
        if job is None:
            return
        line = console.ProgressLine(order.label)
        ended = self.client.jobs.wait(
            job.id, progress=lambda seen: line.update(seen.done, seen.total, note=seen.stage or seen.state)
        )
        line.finish(_said(ended))


def _said(job: Job) -> str:
    """What came of it."""
    result = job.result or {}
    counts = result.get("counts", {})
    text = f"{counts.get('explained', 0):,} explanations, {counts.get('scored', 0):,} scores"
    if counts.get("insufficient"):
        text += f", {counts['insufficient']:,} features with too few examples"
    if counts.get("failed"):
        text += f", {counts['failed']:,} failed"
    spent = result.get("spent", {}).get("tokens", 0)
    return f"{text}, {spent:,} tokens" if spent else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Explains the demo; 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m interpedia_local.explanations")
    parser.add_argument("--url", default=Settings().url, help="the gateway")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url, Settings.from_environment().api_key) as client:
            DemoExplanations(client).make()
    except (InterpediaError, JobFailed) as error:
        console.complain(f"explanations: {error} The services stay up, and `make run` tries again.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
