"""Models: the card, where models lie, and whether a folder holds what its card says."""
