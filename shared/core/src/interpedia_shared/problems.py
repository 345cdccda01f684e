"""Every error a caller can get, as RFC 9457 problem details.

    Problem
    ├── NotFound                404  something named in the path does not exist
    │   ├── ModelNotFound
    │   ├── SAENotFound
    │   ├── FeatureNotFound          index outside the SAE; carries the range
    │   ├── VersionNotFound
    │   ├── CorpusNotFound
    │   ├── ReleaseNotFound
    │   ├── JobNotFound
    │   ├── ExplanationNotFound
    │   ├── EndpointNotFound         no LLM endpoint has this name
    │   └── UploadNotFound
    ├── Unauthorized            401  no key, or a wrong, expired or revoked one
    ├── Forbidden               403  the key lacks the scope, or is not the owner's
    ├── Invalid                 422  a field of the request is wrong; `errors` names each
    │   ├── BadCursor
    │   ├── BadSAE                   the uploaded SAE is refused; names field and fact
    │   ├── BadUpload                a part or file is not what was declared
    │   ├── BadModel                 the model's source cannot be loaded
    │   ├── TooLong                  a text has more tokens than the model takes; limit and value
    │   └── MissingCapability        the LLM endpoint cannot do what the method needs; says how it was found
    ├── Conflict                409  it exists already, or its state does not allow this
    │   └── IdempotencyMismatch      the same key with another body
    ├── TooLarge                413  body or file over the limit
    ├── WrongHost               421  this host serves another model
    ├── Busy                    429  the queue is full; nothing was begun
    ├── ClientGone              499  the caller hung up (seen in logs and metrics only)
    ├── EndpointFailed          502  the LLM endpoint is dead, or refuses key or model
    ├── Unavailable             503  something the service needs is not there right now
    │   └── HostNotReady             its model is not loaded: waiting, loading or failed
    ├── DeadlineExceeded        504  not done within the request's time
    └── InternalError           500  a fault of ours; the log has the request id

A subclass is one documented type: `docs/problems/<slug>.md` is its page (a house test checks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class Problem(Exception):
    """Base of all errors that reach a caller. `detail` is for people, `extensions` for programs."""

    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(
        self, detail: str, *, extensions: Mapping[str, Any] | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extensions: dict[str, Any] = dict(extensions or {})
        self.retry_after_s = retry_after_s

    def body(self, docs_url: str) -> dict[str, Any]:
        """The problem+json object, without `instance` and `request_id`, which the handler adds."""
        return {
            "type": self.slug if self.slug == "about:blank" else f"{docs_url}{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }


class InternalError(Problem):
    """A fault of ours. The text is fixed: what went wrong is in the log, under the request id."""

    def __init__(self) -> None:
        super().__init__("Something broke on our side. The log has the details under this request id.")


class NotFound(Problem):
    """Something the request names does not exist."""

    slug, title, status = "not-found", "Not found", 404


class ModelNotFound(NotFound):
    """No model has this id."""

    slug, title = "model-not-found", "Model not found"

    def __init__(self, model: str) -> None:
        super().__init__(f"No model '{model}' here. GET /v1/models lists them.", extensions={"model": model})


class SAENotFound(NotFound):
    """The model has no SAE with this id."""

    slug, title = "sae-not-found", "SAE not found"

    def __init__(self, model: str, sae: str) -> None:
        super().__init__(
            f"Model '{model}' has no SAE '{sae}'. GET /v1/saes?model={model} lists them.",
            extensions={"model": model, "sae": sae},
        )


class FeatureNotFound(NotFound):
    """The SAE has no feature with this index; or none yet, while its dashboards are being built."""

    slug, title = "feature-not-found", "Feature not found"

    def __init__(self, model: str, sae: str, index: int, n_features: int) -> None:
        super().__init__(
            f"Feature {index} is outside 0..{n_features - 1} of {model}/{sae}."
            if not 0 <= index < n_features
            else f"Feature {index} of {model}/{sae} has no dashboard yet.",
            extensions={"model": model, "sae": sae, "index": index, "first": 0, "last": n_features - 1},
        )


class VersionNotFound(NotFound):
    """The SAE has no such version, or no version that is ready."""

    slug, title = "version-not-found", "SAE version not found"


class CorpusNotFound(NotFound):
    """No corpus has this id."""

    slug, title = "corpus-not-found", "Corpus not found"

    def __init__(self, corpus: str) -> None:
        super().__init__(
            f"No corpus '{corpus}' here. GET /v1/corpora lists them.", extensions={"corpus": corpus}
        )


class ReleaseNotFound(NotFound):
    """No release has this id."""

    slug, title = "release-not-found", "Release not found"


class JobNotFound(NotFound):
    """No job has this id."""

    slug, title = "job-not-found", "Job not found"


class ExplanationNotFound(NotFound):
    """No explanation has this id, or its SAE is private and somebody else's."""

    slug, title = "explanation-not-found", "Explanation not found"

    def __init__(self, explanation: int) -> None:
        super().__init__(f"No explanation {explanation} here.", extensions={"explanation": explanation})


class UploadNotFound(NotFound):
    """No upload of this account has this id, or no part has this number."""

    slug, title = "upload-not-found", "Upload not found"


class Unauthorized(Problem):
    """No key where one is needed, or a wrong, expired or revoked one. Never treated as anonymous."""

    slug, title, status = "unauthorized", "Key missing or wrong", 401


class Forbidden(Problem):
    """The key is right but does not allow this."""

    slug, title, status = "forbidden", "Not allowed", 403


class Invalid(Problem):
    """Fields of the request are wrong. `errors` lists each with a JSON pointer or a query name."""

    slug, title, status = "invalid-request", "Request not valid", 422

    @classmethod
    def field(cls, where: str, detail: str, **extensions: Any) -> Invalid:
        """One wrong field: `where` is a JSON pointer (`#/hook`) or a query name (`limit`)."""
        return cls(
            f"{where}: {detail}", extensions={"errors": [{"field": where, "detail": detail}], **extensions}
        )


class BadCursor(Invalid):
    """The cursor was not made by this route with these filters."""

    slug, title = "bad-cursor", "Cursor not valid"


class BadSAE(Invalid):
    """An SAE's files or manifest are refused; nothing was registered."""

    slug, title = "bad-sae", "SAE refused"


class BadUpload(Invalid):
    """A part or a file is not what the upload declared."""

    slug, title = "bad-upload", "Upload refused"


class BadModel(Invalid):
    """The model's source is refused or cannot be loaded."""

    slug, title = "bad-model", "Model refused"


class Conflict(Problem):
    """It exists already, or its state does not allow this."""

    slug, title, status = "conflict", "Conflict", 409


class IdempotencyMismatch(Conflict):
    """The same Idempotency-Key came with another body, or its first request is still running."""

    slug, title = "idempotency-mismatch", "Idempotency key already used"


class TooLarge(Problem):
    """A body or file is over the limit; both numbers are given."""

    slug, title, status = "too-large", "Too large", 413


class Unavailable(Problem):
    """Something this service needs is not there right now. Try again after `Retry-After` seconds."""

    slug, title, status = "unavailable", "Not available right now", 503


class TooLong(Invalid):
    """A text has more tokens than one request may run; the limit and the number are given."""

    slug, title = "too-long", "Text too long"

    @classmethod
    def tokens(cls, where: str, *, limit: int, value: int) -> TooLong:
        """A text at `where` (a JSON pointer) of `value` tokens where `limit` are taken."""
        detail = f"has {value} tokens, the limit is {limit}"
        error = {"field": where, "detail": detail, "limits": {"limit": limit, "value": value}}
        return cls(f"{where}: {detail}.", extensions={"limit": limit, "value": value, "errors": [error]})


class WrongHost(Problem):
    """This inference host serves another model: the request was sent to the wrong one."""

    slug, title, status = "wrong-host", "Wrong host", 421

    def __init__(self, wanted: str, served: str | None) -> None:
        has = f"serves '{served}'" if served is not None else "serves no model"
        super().__init__(f"This host {has}, not '{wanted}'.", extensions={"model": wanted, "served": served})


class Busy(Problem):
    """The queue is full. Nothing was begun; try again after `Retry-After` seconds."""

    slug, title, status = "busy", "Too busy", 429


class ClientGone(Problem):
    """The caller closed the connection; its work was dropped. Nobody reads this answer."""

    slug, title, status = "client-gone", "Caller hung up", 499

    def __init__(self) -> None:
        super().__init__("The caller closed the connection before the answer was ready.")


class HostNotReady(Unavailable):
    """The host's model is not loaded: it waits for its registration, is being loaded, or failed to load."""

    slug, title = "host-not-ready", "Model not ready"


class DeadlineExceeded(Problem):
    """The request was not done within its time; what was begun is dropped."""

    slug, title, status = "deadline-exceeded", "Deadline exceeded", 504


class EndpointNotFound(NotFound):
    """No LLM endpoint has this name; the settings of the autointerp service name them."""

    slug, title = "endpoint-not-found", "LLM endpoint not found"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        there = (
            f"There are: {', '.join(known)}." if known else "None is set: INTERPEDIA_LLM__BASE_URL makes one."
        )
        super().__init__(
            f"No LLM endpoint '{name}' here. {there}", extensions={"endpoint": name, "known": list(known)}
        )


class MissingCapability(Invalid):
    """The LLM endpoint cannot do what the method needs; `missing` tells how each was found out."""

    slug, title = "missing-capability", "Endpoint cannot do this"

    def __init__(self, method: str, endpoint: str, missing: Mapping[str, str]) -> None:
        listed = "; ".join(f"{need} ({how})" for need, how in missing.items())
        super().__init__(
            f"{method} cannot run with endpoint '{endpoint}', which lacks {listed}.",
            extensions={"method": method, "endpoint": endpoint, "missing": dict(missing)},
        )


class EndpointFailed(Problem):
    """The LLM endpoint does not answer, or refuses the key or the model: no call to it can succeed now."""

    slug, title, status = "endpoint-failed", "LLM endpoint failed", 502

    def __init__(self, endpoint: str, reason: str, detail: str) -> None:
        super().__init__(
            f"LLM endpoint '{endpoint}': {detail}", extensions={"endpoint": endpoint, "reason": reason}
        )
        self.reason = reason
