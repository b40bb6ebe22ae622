"""The verdicts as a table, and as the box that opens a notebook."""

from html import escape

import numpy as np
import pandas as pd

from .. import findings, tables
from ..effects import Crossing, place
from ..utils.files import results_folder
from ..utils.shown import Shown, framed
from . import cells
from .verdict import (AS_IN_PAPER, CLAIMS, CONTRARY, TINY, UNDECIDED, forget, found, holm, judge,
                      p_value, role, rows_of, weakest)

COLORS = dict(zip((AS_IN_PAPER, CONTRARY, UNDECIDED), findings.COLORS.values()))
DIGITS = {"points": 2, "FVE": 3, "normalised FVE": 3, "share": 3, "log2": 2, "E": 1, "W": 0,
          "D": 0}
FIELDS = "number", "notebook", "where", "title", "text", "statistic"
NUMBERS = "value", "low", "high", "scaled", "scaled_low", "scaled_high"  # of that part


def verdicts(notebook=None):
    """The verdict on every claim, or on the claims of one notebook.

    Returns:
        A DataFrame with a row for each claim: `number, notebook, where, title, text, statistic`;
        `profile, trained` (in words), `n` (the seeds that all parts have); of the part that is the
        nearest to failing `part, part_n, effect` (text), `value, low, high` and the same as
        `Part.scaled`;
        `parts`, the text of all; `verdict`; `why`, what leaves it undecided or limits it; `p`, of
        claims with several seeds alone; `holm`, whether the verdict survives Holm's correction over
        these; `images`, whether the intervals cover other test images; `by_paper`, what the paper's
        own means and spreads say.

    Raises:
        ValueError: if no claim belongs to the notebook.
        lc.ResultsError: if the results are damaged.
    """
    known = sorted({claim.notebook for claim in CLAIMS})
    if notebook not in (None, *known):
        raise ValueError(f"no claim belongs to notebook {notebook!r}; those with claims: "
                         f"{', '.join(known)}")
    forget()
    table = pd.DataFrame([judged(claim) for claim in CLAIMS])
    asked = table["p"].notna()
    table["holm"] = False
    table.loc[asked, "holm"] = holm(table.loc[asked, "p"])
    table["holm"] &= table["verdict"] != UNDECIDED
    if notebook is None:
        return table
    return table[table["notebook"] == notebook].reset_index(drop=True)


def judged(claim):
    """The row of a claim in `verdicts`, without `holm`."""
    profile, parts, why = found(claim)
    row = dict({field: getattr(claim, field) for field in FIELDS}, profile=profile, trained="",
               n=0, part="", part_n=0, effect="", **dict.fromkeys(NUMBERS, np.nan), parts=[],
               verdict=UNDECIDED, why=why, p=np.nan, images=False, by_paper=by_paper(claim))
    if not parts:
        return row
    least = weakest(parts)
    if profile in claim.profiles:
        row["verdict"] = judge(parts)
        if seeds(parts) > 1:  # an interval from other networks says no more than the direction
            row["p"] = p_value(parts)
    numbers = least.effect.value, *least.effect.interval(), *least.scaled
    return row | dict(
        trained=trained(claim, profile), n=seeds(parts), part=least.label, part_n=least.effect.n,
        effect=effect_text(least), **dict(zip(NUMBERS, numbers)),
        parts=[f"{part.label}: {effect_text(part)}" for part in parts],
        images=all(part.effect.covers_images for part in parts),
        why=because(claim, profile, parts, row["verdict"]))


def because(claim, profile, parts, verdict):
    """What leaves a claim undecided, or limits its verdict, if anything does."""
    if profile == TINY:
        return "only tiny runs"
    if profile not in claim.profiles:
        return f"only runs of {claim.epochs('paper')} epochs can decide it"
    if verdict != UNDECIDED:
        one_seed = "one seed: direction only, by the spread of other networks"
        return one_seed if seeds(parts) == 1 else ""
    for part in parts:
        if part.unclear:
            return "the grid does not tell {:g} from {:g}".format(*part.unclear)
    if any(np.isnan(part.effect.interval()[0]) for part in parts):
        return "one seed, and too few networks with several to tell how much seeds differ"
    least = weakest(parts)
    if np.isinf(least.effect.value):
        return place(np.inf, f"{least.unit} ")
    return "the interval is too wide"


def seeds(parts):
    """The number of seeds that all parts have."""
    return min(part.effect.n for part in parts)


def trained(claim, profile):
    """What was trained, in words: epochs, the share of the paper's networks that have rows, and the
    networks and data that the paper has not."""
    runs, papers = claim.runs(profile), claim.runs("paper")
    of = "" if profile == "paper" else f"{claim.epochs(profile)} of "
    words = [f"{of}{claim.epochs('paper')} epochs"]
    datasets, theirs = ({run.dataset for run in each} for each in (runs, papers))
    if not datasets <= theirs:
        words.append(" and ".join(tables.images_of(each, profile) for each in sorted(datasets)))
    elif of:
        words.append(f"{100 * steps(runs[0]) / steps(papers[0]):.0f} % of the steps")
    shapes, theirs = ({run.architecture[:2] for run in each} for each in (runs, papers))
    depths = {depth for depth, _ in shapes}
    if len(shapes) == 1 and shapes != theirs:
        words.append("ResNet-{}-{}".format(*shapes.pop()))
    elif len(depths) == 1 and depths != {depth for depth, _ in theirs}:
        words.append(f"depth {depths.pop()}")
    rows, _ = rows_of(claim, profile)
    have = len(rows[["dataset", "model"]].drop_duplicates())
    of = len({(run.dataset, run.model) for run in papers if role(run) in claim.needs})
    return ", ".join(words + [f"{have} of {of} networks"] * (have < of))


def steps(run):
    """The steps of a training."""
    return -(-run.training_images // run.recipe.batch_size) * run.recipe.epochs


def effect_text(part):
    """An effect and its interval: "2.31 points (2.08 to 2.54)"."""
    unit, digits, effect = part.unit, DIGITS[part.unit], part.effect
    if part.unclear:
        return "{} between {:g} and {:g}".format(unit, *part.unclear)
    numbers = effect.value, *effect.interval()
    if isinstance(effect, Crossing):
        value, low, high = (place(each, f"{unit} ", digits) for each in numbers)
        value = f"{unit} = {value}" if 0 < effect.value < np.inf else value
    else:
        digits = tables.told_apart(numbers[1:], digits)
        value, low, high = (tables.number(each, digits) for each in numbers)
        value = f"{value} {unit}"
    ends = f"{low} to {high}" if low != high else "at both ends of its interval, too"
    return f"{value} ({'no interval' if np.isnan(numbers).any() else ends})"


def by_paper(claim):
    """The verdict of the paper's own means on a claim; empty where it prints no spreads."""
    if not claim.published:
        return ""
    parts = claim.parts(claim.published)
    least, verdict = weakest(parts), judge(parts)
    said = "decided" if verdict == AS_IN_PAPER else verdict
    return f"{said}: {effect_text(least)}, {least.label}"


def own_numbers(a, b, here):
    """A line of a table, by title: whether two published means decide the sign of their difference.

    Args:
        a, b: `paper.Published`.
        here: the difference of the same means here.
    """
    effect = cells.published(a) - cells.published(b)
    said, low, high = (tables.number(each, 2) for each in (effect.value, *effect.interval()))
    decided = findings.judge(effect) != findings.OPEN
    return {"the paper": f"{said} ({low} to {high})",
            "by the paper's own numbers": "decided" if decided else "not decided",
            "here": tables.number(here, 2, "+")}


def full_recipe_parts(claim):
    """The parts of a claim by rows of the paper's recipe, however few; empty if these lack any."""
    rows, covered = rows_of(claim, "paper")
    try:
        parts = claim.parts(cells.Cells(rows)) if covered else []
    except (LookupError, ValueError):  # the runs lack networks that the claim is about
        return []
    return parts if np.isfinite([part.distances[0] for part in parts]).all() else []


def full_recipe_text(claim, parts):
    """What rows of the paper's recipe say, as text."""
    least = weakest(parts)
    return (f"{least.label}: {effect_text(least)}; {claim.epochs('paper')} epochs, "
            f"n = {least.effect.n}")


def doubt(claim):
    """What rows of the paper's recipe, however few, say of a claim that smaller runs contradict."""
    parts, reason = full_recipe_parts(claim), claim.reason or "We do not know why."
    if not parts:
        return f"{reason} There are no runs of the paper's recipe that can tell."
    said = full_recipe_text(claim, parts)
    if all(part.distances[0] > 0 for part in parts):
        return (f"The runs of the paper's recipe point its way ({said}), so the shorter recipe may "
                "be the reason.")
    return f"{reason} The runs of the paper's recipe say the same ({said})."


def verdict_text(row):
    """A verdict and what leaves it undecided, or limits it."""
    if not row.why:
        return row.verdict
    return f"{row.verdict}: {row.why}" if row.verdict == UNDECIDED else f"{row.verdict} ({row.why})"


def box(notebook, profile="paper"):
    """The verdicts on the claims of a notebook, such as "03", for it to show.

    Each has the claim, what these rows show and the verdict; what decides it folds away. In another
    profile than "paper", it says which rows these are. Raises ValueError as `verdicts`.
    """
    boxes = []
    if profile != "paper":
        note = (f"These verdicts are of the longest recipes in {results_folder()}, whatever the "
                "figures show.")
        boxes.append(Shown(f"<div>{escape(note)}</div>", note))
    for row in verdicts(notebook).itertuples():
        title = f"Claim {row.number}, {row.title}: {verdict_text(row)}"
        details = "".join(f"<div>{escape(each)}</div>" for each in _details(row))
        folded = f"<details><summary>What decides it</summary>{details}</details>"
        boxes.append(framed(COLORS[row.verdict], title, list(_lines(row)), folded))
    return Shown("".join(each.html for each in boxes), "\n".join(each.text for each in boxes))


def _lines(row):
    claim = next(each for each in CLAIMS if each.number == row.number)
    yield f"The paper, {row.where}", row.text
    if row.by_paper:
        yield "By the paper's own numbers", row.by_paper
    if row.effect:
        least = f", the weakest of {len(row.parts)} parts" if len(row.parts) > 1 else ""
        others = f" ({row.n} of another part)" if row.part_n != row.n else ""
        yield "Here", f"{row.part}: {row.effect}{least}; {row.trained}, n = {row.part_n}{others}"
    if row.verdict == CONTRARY:
        yield "Why", doubt(claim)
    elif row.profile != "paper" and (parts := full_recipe_parts(claim)):
        yield "The paper's recipe, as far as it is trained", full_recipe_text(claim, parts)


def _details(row):
    yield f"Statistic: {row.statistic}"
    yield from row.parts
    if np.isnan(row.p):
        return
    survives = "survives" if row.holm else "does not survive"
    holm = f"; the verdict {survives} Holm's correction over the claims with several seeds"
    yield f"p = {row.p:.1g}" + (holm if row.verdict != UNDECIDED else "")
