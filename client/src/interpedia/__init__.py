"""Read, publish and follow features of neural networks on an Interpedia server."""

from __future__ import annotations

from interpedia.client import Client
from interpedia.errors import (
    ApiError,
    BadReference,
    Conflict,
    FileProblem,
    Forbidden,
    InterpediaError,
    Invalid,
    JobFailed,
    NotFound,
    Problem,
    ServerFault,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
    UploadInterrupted,
    WaitedTooLong,
)
from interpedia.references import FeatureRef
from interpedia.schemas import (
    Corpus,
    Feature,
    Job,
    JobEvent,
    Model,
    Page,
    Part,
    Publication,
    Resource,
    Sae,
    Upload,
)
from interpedia.transport import RetryPolicy

__all__ = [
    "ApiError",
    "BadReference",
    "Client",
    "Conflict",
    "Corpus",
    "Feature",
    "FeatureRef",
    "FileProblem",
    "Forbidden",
    "InterpediaError",
    "Invalid",
    "Job",
    "JobEvent",
    "JobFailed",
    "Model",
    "NotFound",
    "Page",
    "Part",
    "Problem",
    "Publication",
    "Resource",
    "RetryPolicy",
    "Sae",
    "ServerFault",
    "ServerUnreachable",
    "Unauthorized",
    "Unavailable",
    "Upload",
    "UploadInterrupted",
    "WaitedTooLong",
]
