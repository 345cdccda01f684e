"""What one call under way has reserved, and what was sent for it without an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from interpedia_autointerp.llm.answer import Failure, Usage
from interpedia_autointerp.llm.budget import Amount
from interpedia_autointerp.llm.errors import BudgetExhausted
from interpedia_autointerp.llm.exchange import CallFailed
from interpedia_autointerp.llm.ledger import Closing, TakenOver

Extend = Callable[[Closing], Awaitable[BudgetExhausted | None]]


class Stake:
    """One reservation for each request that may have to be paid: the one under way, and those that were lost.

    Args:
        ending: how its row is to be closed; its amount is the first reservation.
        worst: the most tokens that one request may take.
        is_wanted: whether anybody still waits.
        extend: adds the closing's amount to the budget's reservations, or tells why not.
    """

    def __init__(
        self, ending: Closing, worst: Usage, *, is_wanted: Callable[[], bool], extend: Extend
    ) -> None:
        self._first = ending
        self._worst = worst
        self._reserved = 1
        self._extend = extend
        self.is_wanted = is_wanted
        self.lost = 0

    @property
    def ending(self) -> Closing:
        """With all that is reserved by now."""
        return replace(self._first, amount=_times(self._first.amount, self._reserved))

    def was_lost(self) -> None:
        """A request got no answer; it may have been billed, as far as it could."""
        self.lost += 1

    async def before_sending(self) -> None:
        """Reserve anew for what was lost.

        Raises:
            CallFailed: it does not fit into the budget. Whether other calls do, they find out themselves.
        """
        while self._reserved <= self.lost:
            try:
                refusal = await self._extend(self._first)
            except TakenOver:
                detail = "A request got no answer, and another process asks the same by now."
                raise CallFailed(Failure("endpoint", detail)) from None
            if refusal is not None:
                detail = f"A request got no answer, and is not sent again. {refusal.detail}"
                raise CallFailed(Failure("endpoint", detail))
            self._reserved += 1

    def charged(self, told: Usage | None) -> Usage:
        """Tokens that count as used: those of the answer, and all that the lost requests may have taken."""
        used = told or Usage()
        if not self.lost:
            return used
        return replace(
            used,
            tokens_in=used.tokens_in + self.lost * self._worst.tokens_in,
            tokens_out=used.tokens_out + self.lost * self._worst.tokens_out,
            is_estimated=True,
        )


def _times(amount: Amount, count: int) -> Amount:
    return Amount(amount.tokens * count, None if amount.micro is None else amount.micro * count)
