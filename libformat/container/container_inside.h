/* container_inside.h -- what container_check needs of a map beyond container_map.h. Private to
 * libformat/container. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_INSIDE_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_INSIDE_H

#include <stdint.h>

struct sf_map;

/* The stored XXH3-64 of a chunk. */
uint64_t map_checksum(const struct sf_map *map, uint64_t chunk);

#endif
