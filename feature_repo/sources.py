"""Where features come from: Parquet or PostgreSQL by environment, and pushes from the streaming engine."""

from generation import definitions

rows_source = definitions.rows_source
windows_source = definitions.windows_source
bar_features_push = definitions.rows_push
bar_windows_push = definitions.windows_push
