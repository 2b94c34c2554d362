/* base_copy.h -- the copy of a base's weight that PEFT leaves in the file of an adapter of lm_head: is it
 * the base's own? If not, the adapter belongs to another base, or a whole weight was trained.
 *
 * Equal means every number, as float32, bit for bit. SF_EUNSUPPORTED, naming the key, when it is not
 * the base's, or cannot be compared because the container holds that weight in 4 bits. */
#ifndef SCOUT_LIBFORMAT_CONVERT_BASE_COPY_H
#define SCOUT_LIBFORMAT_CONVERT_BASE_COPY_H

#include "libformat/adapter/adapter_source.h"
#include "libformat/container/container_map.h"
#include "libformat/hf/hf_index.h"

/* For sf_adapter_check_usable and sf_adapter_read_on; what they are given outlives the value. */
struct sf_adapter_base sf_base_in_checkpoint(const struct sf_hf_index *index);
struct sf_adapter_base sf_base_in_container(const struct sf_map *map);

#endif
