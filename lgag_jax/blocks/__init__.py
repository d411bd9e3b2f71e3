"""Maps an area block by block: plans blocks, maps each on its own, and joins their polygons.

`map_block` knows no engine; `local_engine` and `ray_engine` are thin adapters over it.

May import: catalogues, config, geo, imagery, mapping, method, options, pages, runtime.
"""
