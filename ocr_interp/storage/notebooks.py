"""How results show themselves in a notebook: their short text, and below it their table."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ocr_interp.storage.plain import printable

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS, MOST_COLUMNS = 24, 14
"""Rows and columns of a table that a notebook shows; those in the middle are left out, and said so."""


class ShownAsTable:
    """A result that a notebook shows as a table; its class has `table`, a table or what makes one."""

    def _in_notebooks(self) -> pd.DataFrame:
        """The table that is shown."""
        found: Any = vars(self).get("table")  # a field; else a method of the class
        return self.table() if found is None else found  # pyright: ignore[reportAttributeAccessIssue]

    def _repr_html_(self) -> str:
        return html_table(repr(self), self._in_notebooks())


def html_table(heading: str, table: pd.DataFrame) -> str:
    """A table as HTML below its heading; texts are escaped, and the middle of large ones is left out.

    >>> import pandas as pd
    >>> "&lt;b&gt;" in html_table("<b>", pd.DataFrame({"margin": [1.0]}))
    True
    """
    rows, columns = table.shape
    shown = table.to_html(
        max_rows=MOST_ROWS,
        max_cols=MOST_COLUMNS,
        show_dimensions=False,
        border=0,
        float_format="{:.5g}".format,
    )
    size = f"{rows:,} rows, {columns} columns" if rows > MOST_ROWS or columns > MOST_COLUMNS else ""
    told = f"<p>{size}</p>" if size else ""
    return f"<div><p><code>{html.escape(printable(heading))}</code></p>{printable(shown)}{told}</div>"
