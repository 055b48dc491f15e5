"""Whether a measured variant counts as an optimisation. Pure.

It must answer as its parent does: with 95 % confidence on at least `min_agreement` of rows, or, where right
answers are known, lose at most `max_metric_drop` of them. With so few rows that not even full agreement could
prove `min_agreement`, there must be no disagreement at all. And it must be worth it: `min_speedup` times as
fast at some measured batch size, with the lower quartile of the rounds above 1, or `min_shrink` times
smaller.
"""

from __future__ import annotations

import math
from typing import Final

from control_plane.domain.optimization import Answers, Budget, Decision, Report, Timing

ALPHA: Final = 0.05


def decide(report: Report, budget: Budget) -> Decision:
    """Return the decision and what speaks for it or against it."""
    against = [
        sentence
        for sentence in (
            _broken(report.answers),
            _other_answers(report.answers, budget),
            _no_use(report, budget),
        )
        if sentence
    ]
    if against:
        return Decision(accepted=False, reasons=tuple(against))
    return Decision(accepted=True, reasons=(_answers_held(report.answers, budget), _use(report, budget)))


def enough_rows(min_agreement: float) -> int:
    """Rows in full agreement from which on *min_agreement* is proven; 0 where nothing is asked for."""
    if min_agreement <= 0:
        return 0
    return math.ceil(math.log(ALPHA) / math.log(min_agreement)) if min_agreement < 1 else 2**63


def agreement_holds(answers: Answers, budget: Budget) -> bool:
    """Whether the rows show, as far as so many can, that both answer alike."""
    if not answers.rows:
        return False
    unanimous = answers.agreed == answers.rows and answers.rows < enough_rows(budget.min_agreement)
    return answers.agreement_bound >= budget.min_agreement or unanimous


def metric_holds(answers: Answers, budget: Budget) -> bool:
    """Whether right answers are known and not too many of them are lost."""
    return answers.metric_drop is not None and answers.metric_drop <= budget.max_metric_drop


def is_faster(timing: Timing, budget: Budget) -> bool:
    """Whether the variant is faster at this batch size, and not by chance."""
    return timing.speedup >= budget.min_speedup and timing.speedup_low > 1


def _broken(answers: Answers) -> str | None:
    if not answers.broken:
        return None
    return f"{answers.broken} of {answers.rows} rows are answered with NaN or infinity"


def _other_answers(answers: Answers, budget: Budget) -> str | None:
    if agreement_holds(answers, budget) or metric_holds(answers, budget):
        return None
    if not answers.rows:
        return "there is no row to compare answers on"
    said = (
        f"the same answer on {answers.agreed} of {answers.rows} rows, with 95 % confidence on at least "
        f"{answers.agreement_bound:.2%}; {budget.min_agreement:.1%} is needed"
    )
    if answers.metric_drop is None:
        return said
    return f"{said}, and {_metric(answers)}; {budget.max_metric_drop:.1%} may be lost"


def _no_use(report: Report, budget: Budget) -> str | None:
    if any(is_faster(timing, budget) for timing in report.timings) or report.shrink >= budget.min_shrink:
        return None
    best = max(report.timings, key=lambda timing: timing.speedup)
    return (
        f"no benefit: {best.speedup:.2f} times as fast at batch {best.batch} and {report.shrink:.2f} times "
        f"smaller; {budget.min_speedup:g} times as fast or {budget.min_shrink:g} times smaller is needed"
    )


def _answers_held(answers: Answers, budget: Budget) -> str:
    if not agreement_holds(answers, budget):
        return f"{_metric(answers)}; {budget.max_metric_drop:.1%} may be lost"
    said = f"the same answer on {answers.agreed} of {answers.rows} rows"
    if answers.agreement_bound >= budget.min_agreement:
        return f"{said}, with 95 % confidence on at least {answers.agreement_bound:.2%}"
    needed = enough_rows(budget.min_agreement)
    return f"{said}; {needed} rows would prove {budget.min_agreement:.1%}"


def _metric(answers: Answers) -> str:
    return (
        f"right on {answers.variant_right} of {answers.labelled} labelled rows, its parent on "
        f"{answers.parent_right}"
    )


def _use(report: Report, budget: Budget) -> str:
    faster = [timing for timing in report.timings if is_faster(timing, budget)]
    told = [f"{timing.speedup:.2f} times as fast at batch {timing.batch}" for timing in faster]
    if report.shrink >= budget.min_shrink:
        told.append(f"{report.shrink:.2f} times smaller")
    slower = [
        f"{1 / timing.speedup:.2f} times slower at batch {timing.batch}"
        for timing in report.timings
        if timing.speedup_high < 1 / budget.min_speedup
    ]
    return ", ".join(told) + (f", but {', '.join(slower)}" if slower else "")
