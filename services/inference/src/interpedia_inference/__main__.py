"""`python -m interpedia_inference`: run the service."""

from __future__ import annotations

from interpedia_engine.threads import keep_freed_memory
from interpedia_inference.app import create_app
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.app import serve
from interpedia_shared.settings import load_database_settings


def main() -> None:
    """Read the settings and serve."""
    settings = InferenceSettings()
    keep_freed_memory()
    serve(create_app(settings, load_database_settings()), settings)


if __name__ == "__main__":
    main()
