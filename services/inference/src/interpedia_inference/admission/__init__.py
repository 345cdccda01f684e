"""Admission: a bounded queue, deadlines, and callers that hang up."""

from interpedia_inference.admission.admission import Admission
from interpedia_inference.admission.cost import Cost, generation_cost, reading_cost
from interpedia_inference.admission.ticket import Ticket

__all__ = ["Admission", "Cost", "Ticket", "generation_cost", "reading_cost"]
