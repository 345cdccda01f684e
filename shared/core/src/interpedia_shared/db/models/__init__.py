"""All tables. Importing this module registers every one of them on `Base.metadata`."""

from interpedia_shared.db.models.catalogue import SAE, LanguageModel, Release, SAEVersion, Tokenizer
from interpedia_shared.db.models.corpus import Context, Corpus, CorpusDocument
from interpedia_shared.db.models.explanation import (
    EMBEDDING_WIDTH,
    Budget,
    Explanation,
    ExplanationTask,
    LLMCall,
    LLMEndpoint,
    RedTeamText,
    Run,
    RunCall,
    Score,
    Verdict,
)
from interpedia_shared.db.models.feature import FEATURE_PARTITIONS, Feature
from interpedia_shared.db.models.job import Job, JobEvent, JobTask
from interpedia_shared.db.models.live import InferenceHost, SteeringRun
from interpedia_shared.db.models.people import Account, APIKey, IdempotencyKey
from interpedia_shared.db.models.upload import Upload, UploadFile

__all__ = [
    "EMBEDDING_WIDTH",
    "FEATURE_PARTITIONS",
    "SAE",
    "APIKey",
    "Account",
    "Budget",
    "Context",
    "Corpus",
    "CorpusDocument",
    "Explanation",
    "ExplanationTask",
    "Feature",
    "IdempotencyKey",
    "InferenceHost",
    "Job",
    "JobEvent",
    "JobTask",
    "LLMCall",
    "LLMEndpoint",
    "LanguageModel",
    "RedTeamText",
    "Release",
    "Run",
    "RunCall",
    "SAEVersion",
    "Score",
    "SteeringRun",
    "Tokenizer",
    "Upload",
    "UploadFile",
    "Verdict",
]
