"""Many features in one request: one read for each SAE, the answer in the order asked for."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from interpedia_gateway.features import repository
from interpedia_gateway.features.dashboards import dashboards
from interpedia_gateway.features.schemas import MAX_BATCH_DASHBOARDS, BatchItem, BatchOut, BatchRequest
from interpedia_gateway.features.service import Asked, Features
from interpedia_shared.db.session import ReadSession
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import FeatureNotFound, Invalid, Problem


async def read_batch(
    features: Features, session: ReadSession, request: BatchRequest, docs_url: str
) -> BatchOut:
    """Read all features asked for; what is not there gets a problem of its own and fails nothing else.

    Raises:
        Invalid: more dashboards than one request may ask for.
    """
    _check_number(request)
    groups: dict[Asked, set[int]] = defaultdict(set)
    parsed: list[FeatureRef | Problem] = []
    for number, text in enumerate(request.refs):
        try:
            ref = FeatureRef.parse(text)
        except ValueError as error:
            parsed.append(Invalid.field(f"#/refs/{number}", str(error)))
            continue
        parsed.append(ref)
        groups[Asked(ref.model, ref.sae)].add(ref.index)
    answers: dict[FeatureRef, BatchItem | Problem] = {}
    for asked, indices in groups.items():
        answers.update(await _read_group(features, session, asked, indices, request.include))
    found = [ref if isinstance(ref, Problem) else answers[ref] for ref in parsed]
    return BatchOut(
        items=[
            BatchItem(ref=text, problem=item.body(docs_url)) if isinstance(item, Problem) else item
            for text, item in zip(request.refs, found, strict=True)
        ]
    )


def _check_number(request: BatchRequest) -> None:
    given = len(request.refs)
    if request.include == "dashboard" and given > MAX_BATCH_DASHBOARDS:  # each is long to render and to send
        raise Invalid.field(
            "#/refs",
            f"{given} refs, but with include=dashboard a batch has at most {MAX_BATCH_DASHBOARDS}",
            limit=MAX_BATCH_DASHBOARDS,
            given=given,
        )


async def _read_group(
    features: Features, session: ReadSession, asked: Asked, indices: set[int], include: str
) -> dict[FeatureRef, BatchItem | Problem]:
    refs = {index: FeatureRef(asked.model, asked.sae, index) for index in indices}
    try:
        place = await features.place(asked)
        inside = [index for index in indices if 0 <= index < place.d_sae]
        setting = await features.setting(place, None) if inside else None
    except Problem as problem:
        return dict.fromkeys(refs.values(), problem)
    members: dict[int, dict[str, Any]] = {}
    if setting is not None and include == "dashboard":
        rows = await repository.features_of(session, setting.version.id, inside)
        for board in await dashboards(session, setting, rows.values()):
            members[board.index] = {"dashboard": board}
    elif setting is not None:
        found = await repository.summaries_of(session, setting.version.id, inside)
        for summary in await features.summarise(setting, list(found.values())):
            members[summary.index] = {"summary": summary}
    return {
        ref: BatchItem(ref=str(ref), **members[index])
        if index in members
        else FeatureNotFound(asked.model, asked.sae, index, place.d_sae)
        for index, ref in refs.items()
    }
