"""From a model, its SAEs and a corpus to the dashboards of all features: numbers only, no HTTP and no SQL.

`select_contexts` → `collect_shard` (one forward pass for all SAEs, spill files) → `Reducer` (a range of
features) → `feature_row`; `summarise` for the SAE as a whole.
"""
