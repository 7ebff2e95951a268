"""From tiles to results: the stream over tiles and the journal that survives a kill."""
