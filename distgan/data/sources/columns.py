"""The columns of a table that hold images and labels: by option, by kind, or by their usual names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from distgan.errors import UserError
from distgan.text import did_you_mean


def pick_column(
    option: str,
    given: str | None,
    columns: Sequence[str],
    candidates: Sequence[str],
    usual: Collection[str],
    where: str,
) -> str | None:
    """The column that an option names; without it the only candidate, or the only one with a usual name.

    None if nothing is given and there is no candidate. Raises UserError, naming the table as `where`, for a column that
    is not in it, and for several candidates.
    """
    if given is not None:
        if columns.count(given) > 1:
            raise UserError(f"{option} {given}: {where} has several columns of this name; rename them")
        if given not in columns:
            raise UserError(f"{option} {given}: no such column in {where}{did_you_mean(given, columns)}")
        return given
    found = candidates
    if len(found) > 1:
        found = [name for name in candidates if name.lower() in usual]
    if len(found) != 1 and candidates:
        raise UserError(f"{where}: has several columns that it may be; choose {option} {' or '.join(candidates)}")
    return found[0] if found else None
