"""The one error tree of the engine.

EngineError
├── UnknownHook            no such hook name
│   └── UnsupportedHook    a real hook, which plain modules of this architecture cannot give
├── UnknownModel           no such model, or a source that names none
├── ModelLoadFailed        the model is named, but cannot be loaded
├── UnsupportedArchitecture  a model or SAE architecture that the engine does not run
├── BadSAEConfig           cfg.json says something that cannot be
├── BadWeights             a weights file that is not what cfg.json promises
├── WidthMismatch          two widths that must be equal are not
├── OutOfRange             a number outside its range
├── MissingInput           a computation lacks a tensor that it needs
├── BadTemplate            a prompt template that cannot be, or not with this tokenizer
├── UnsupportedChat        the model has no chat template, or it refuses these messages
└── NoRoom                 what would fit an empty machine does not fit this one now

Every error names the field that is wrong and the fact, so that a caller can show both.
"""

from __future__ import annotations


class EngineError(Exception):
    """Something was asked of the engine that it refuses, with the field and the fact."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class UnknownHook(EngineError):
    """No hook has this name."""


class UnsupportedHook(UnknownHook):
    """The hook exists, but it cannot be read (or written) in this architecture; the detail says why."""


class UnknownModel(EngineError):
    """The source names no model."""


class ModelLoadFailed(EngineError):
    """The model is named, but it cannot be loaded."""


class UnsupportedArchitecture(EngineError):
    """The engine does not run this model or SAE architecture; the detail says why or lists those it runs."""


class BadSAEConfig(EngineError):
    """`cfg.json` of an SAE is malformed or says something impossible."""


class BadWeights(EngineError):
    """A weights file is malformed, or is not what `cfg.json` promises."""


class WidthMismatch(EngineError):
    """Two widths that must be equal are not."""


class OutOfRange(EngineError):
    """A number lies outside its range."""


class MissingInput(EngineError):
    """A computation lacks a tensor that it needs."""


class BadTemplate(EngineError):
    """A prompt template is malformed, unknown, or cannot be rendered with this tokenizer."""


class UnsupportedChat(EngineError):
    """The model has no chat template, or its template refuses these messages; the detail is its own."""


class NoRoom(EngineError):
    """It does not fit beside what is running; it may later."""
