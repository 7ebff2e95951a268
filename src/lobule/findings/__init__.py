"""The typed results: what is written to ``findings.json`` and what the exports and the report are made of."""
