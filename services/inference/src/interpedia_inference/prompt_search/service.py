"""What a prompt search is checked for before it begins, and the templates that there are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from interpedia_engine.effects import Steps
from interpedia_engine.errors import BadTemplate
from interpedia_engine.templates import Template, bundled, bundled_ids, find_template
from interpedia_engine.templates.rendering import Rendered, rendering
from interpedia_engine.templates.search import default_controls
from interpedia_inference.admission.cost import Cost, active_per_token
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.effects import (
    PromptSearchChecked,
    PromptSearchRequest,
    PromptTemplate,
)
from interpedia_shared.problems import Invalid, TooLarge
from interpedia_shared.schemas import Page

SHOWN_PROMPTS = 5
_KEPT, _TAKEN_OUT = 32, 20
"""Bytes of an active feature: position, feature and weight, and feature and activation once more."""
_INDEX = re.compile(r"\[(\d+)\]")


def list_templates() -> Page[PromptTemplate]:
    """All bundled templates, by id."""
    found = [bundled(template_id) for template_id in bundled_ids()]
    return Page[PromptTemplate](
        items=[
            PromptTemplate(id=one.id, title=one.title, description=one.description, source=one.source)
            for one in found
        ]
    )


async def read_template(body: PromptSearchRequest) -> Template:
    """The request's template, read in a thread: parsing somebody's YAML takes as long as it is.

    Raises:
        Invalid: it is malformed, or cannot be searched by the method asked for; names the part.
    """
    try:
        template = await asyncio.to_thread(find_template, body.template)
        if body.method == "attribution_patching" and not template.corrupt:
            raise BadTemplate("template.corrupt", "patching needs to know how a prompt is corrupted")
    except BadTemplate as error:
        raise refused(error) from error
    for number, control in enumerate(body.controls or ()):
        try:
            bundled(control)
        except BadTemplate as error:
            raise Invalid.field(f"#/controls/{number}", error.detail) from error
    return template


async def check_search(visit: Visit, body: PromptSearchRequest) -> PromptSearchChecked:
    """Find out whether a search can begin: SAEs, template, controls, and prompts with this tokenizer.

    Raises:
        Invalid: the template cannot be written with this tokenizer, or what `read_template` refuses.
        Problem: see `Visit`.
    """
    template = await read_template(body)
    held = await visit.borrow(body.saes_named())
    visit.charge(Cost(tokens=body.n))
    rendered = await write_prompts(visit, body, template, list(held.values()))
    return PromptSearchChecked(
        template=template.id,
        n=len(rendered.prompts),
        prompts=[prompt.text for prompt in rendered.prompts[:SHOWN_PROMPTS]],
        controls=list(default_controls(template) if body.controls is None else body.controls),
    )


async def write_prompts(
    visit: Visit, body: PromptSearchRequest, template: Template, saes: Sequence[HeldSAE]
) -> Rendered:
    """Write the prompts of a search, and see that it does not take more memory than a search may.

    Raises:
        Invalid: the template cannot be written with this tokenizer in prompts short enough.
        TooLarge: too many tokens of prompts for these SAEs.
    """

    def write() -> Steps[Rendered]:
        limit = visit.max_effect_tokens
        return rendering(template, visit.model, n=body.n, seed=body.seed, max_tokens=limit)

    try:
        rendered = await visit.call(write, work=body.n)
    except BadTemplate as error:
        raise refused(error) from error
    n_tokens = sum(len(prompt.case.tokens) for prompt in rendered.prompts)
    needed, limit = n_tokens * _bytes_per_token(body, saes), visit.settings.max_search_bytes
    if needed > limit:
        raise TooLarge(
            f"This search needs {needed} bytes for {n_tokens} tokens of prompts, the limit is {limit}. "
            "Ask for fewer or shorter prompts, or fewer SAEs.",
            extensions={"what": "bytes", "limit": limit, "value": needed, "tokens": n_tokens},
        )
    return rendered


def _bytes_per_token(body: PromptSearchRequest, saes: Sequence[HeldSAE]) -> int:
    """Kept of each prompt: stream and gradient, active features, estimates.

    All active features of one SAE are there once more: they are taken out with and without the first n.
    """
    sides = 2 if body.method == "attribution_patching" else 1
    active = [sides * active_per_token(one.sae) for one in saes]
    streams = sum(one.sae.d_in + one.sae.d_out for one in saes)
    return 4 * (streams + body.k) + _KEPT * sum(active) + _TAKEN_OUT * max(active)


def refused(error: BadTemplate) -> Invalid:
    """A template's error at its place: `template.variants[1].good` is `#/template/variants/1/good`."""
    return Invalid.field("#/" + _INDEX.sub(r".\1", error.field).replace(".", "/"), error.detail)
