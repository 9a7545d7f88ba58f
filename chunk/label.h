/* SPDX-License-Identifier: MIT */
/* label.h - who this disk is: two copies of 4096 bytes (chunk/format.h), without I/O. */
#ifndef CHUNK_LABEL_H
#define CHUNK_LABEL_H

#include "chunk/format.h"

struct chunk_label {
	struct uid128 disk_id;
	uint64_t epoch;
	uint64_t data_bytes;
};

/* One copy's bytes from @l. */
void	chunk_label_encode(const struct chunk_label *l, uint8_t out[CHUNK_LABEL_BYTES]);

/* One copy.  0; ERR_DISK_FOREIGN without our magic; ERR_DISK_DAMAGED when the crc or a
 * field is wrong; ERR_DISK_NEWER. */
int	chunk_label_decode(const uint8_t in[CHUNK_LABEL_BYTES], struct chunk_label *out);

/* The label to believe out of both copies, as they lie on disk.  *stale gets a bit for
 * each copy that should be rewritten from it (bit i: copy i).  0; ERR_DISK_NEWER when any
 * copy is; ERR_DISK_DAMAGED when none is good and one was ours; ERR_DISK_FOREIGN. */
int	chunk_label_choose(const uint8_t in[CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES],
	    struct chunk_label *out, unsigned *stale);

#endif
