"""The families: what goes into a model of each kind, what comes out, and what it means. No files, no devices."""
