"""What can go wrong while dashboards are built.

DashboardError
├── BadSettings          settings that contradict themselves, or of another algorithm version
├── BadSelection         contexts and token ids that do not fit together
├── BadSpill             a spill file that is cut, altered, or of another build
├── NotFinite            an activation or a logit is NaN or infinite
├── NothingCounted       the ignore rules leave no token at all
└── BuildCancelled       the caller asked to stop
"""

from __future__ import annotations


class DashboardError(Exception):
    """Dashboards cannot be built, with the field and the fact."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class BadSettings(DashboardError):
    """The settings contradict themselves, or were written for another version of the algorithm."""


class BadSelection(DashboardError):
    """The selected contexts and their token ids do not fit together or to the request."""


class BadSpill(DashboardError):
    """A spill file is cut, altered, or belongs to another build."""


class NotFinite(DashboardError):
    """An activation or a logit is NaN or infinite."""


class NothingCounted(DashboardError):
    """The ignore rules leave no token to count."""


class BuildCancelled(DashboardError):
    """The caller asked to stop."""
