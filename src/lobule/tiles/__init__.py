"""Tile grids and the choice of tiles: integer arithmetic and areas, no pixels."""

from lobule.tiles.grid import TileGrid
from lobule.tiles.selection import select, tile_shares

__all__ = ["TileGrid", "select", "tile_shares"]
