"""What is known of a symbol: its latest row (own bars, peers) and its look-back window."""

from generation import definitions

from barcast.adapters.feast_definitions import CROSS, ROWS

_rows = {view.name: view for view in definitions.rows}
bar_features = _rows.get(ROWS)
cross_symbol_features = _rows.get(CROSS)
bar_windows = definitions.windows
