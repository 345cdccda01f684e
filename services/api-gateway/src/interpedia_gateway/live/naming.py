"""What a live request names is looked up here: hosts see only what the caller may see."""

from __future__ import annotations

from sqlalchemy import any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from interpedia_gateway.catalogue.lookup import PLACE_COLUMNS, SAEPlace, check_model, readable_by
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.live.requests import ModelRequest
from interpedia_shared.db.models import SAE
from interpedia_shared.db.session import Database
from interpedia_shared.problems import SAENotFound


async def places_of(database: Database, caller: Caller | None, body: ModelRequest) -> dict[str, SAEPlace]:
    """The SAEs that a request names, by id.

    Raises:
        ModelNotFound: no such model.
        SAENotFound: the model has no such SAE that this caller may see.
        FeatureNotFound: an SAE has no feature with this index.
    """
    wanted = body.saes_named()
    async with database.read() as session:
        await check_model(session, body.model)
        statement = select(*PLACE_COLUMNS).where(
            SAE.model_id == body.model, SAE.slug == any_(literal(wanted, ARRAY(Text))), readable_by(caller)
        )
        rows = (await session.execute(statement)).all() if wanted else []
    places = {place.sae: place for place in (SAEPlace(*row) for row in rows)}
    for sae in wanted:
        if sae not in places:
            raise SAENotFound(body.model, sae)
    for at in body.features_named():
        places[at.sae].check_index(at.feature)
    return places
