"""Complete uploads, for whoever publishes from them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypeVar

from interpedia_ingest.refusals import refuse
from interpedia_ingest.uploads import repository
from interpedia_shared.db.models import UploadFile
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.problems import Invalid

P = TypeVar("P", bound=Invalid)


async def complete_files(
    session: ReadSession | WriteSession,
    account_id: int,
    upload_id: uuid.UUID,
    *,
    kind: str,
    pointer: str,
    problem: type[P],
) -> Sequence[UploadFile]:
    """The files of an account's complete upload of a kind.

    Args:
        session: Any.
        account_id: Whose upload it must be; others' do not exist.
        upload_id: Which.
        kind: `sae` or `corpus`.
        pointer: Where the request names the upload.
        problem: What a refusal is.

    Raises:
        P: there is none, it is still open, or of the other kind.
    """
    found = await repository.find(session, account_id, upload_id)
    if found is None:
        raise refuse(problem, pointer, f"you have no upload {upload_id}")
    upload, files = found
    if upload.kind != kind:
        raise refuse(problem, pointer, f"upload {upload_id} is of kind '{upload.kind}', not '{kind}'")
    if upload.state != "complete":
        detail = f"upload {upload_id} is {upload.state}: POST /v1/uploads/{upload_id}/complete first"
        raise refuse(problem, pointer, detail)
    return files
