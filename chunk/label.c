/* SPDX-License-Identifier: MIT */
/* label.c - encode, decode and choose.  A newer label wins over everything: an old
 * program must not "repair" the disk of a new one. */
#include "chunk/label.h"

#include <assert.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/version.h"

static const uint8_t magic[8] = { 'F', 'S', 'D', 'D', 'I', 'S', 'K', '1' };

#define CRC_FROM	12u		/* what the crc covers starts here */
#define USED		52u		/* the rest is zero */

void
chunk_label_encode(const struct chunk_label *l, uint8_t out[CHUNK_LABEL_BYTES])
{
	struct bytes_writer w;

	memset(out, 0, CHUNK_LABEL_BYTES);
	bytes_writer_init(&w, out, CHUNK_LABEL_BYTES);
	bytes_put_raw(&w, magic, sizeof(magic));
	bytes_put_u32(&w, 0);
	bytes_put_u32(&w, FSD_DISK);
	bytes_put_raw(&w, l->disk_id.b, sizeof(l->disk_id.b));
	bytes_put_u64(&w, l->epoch);
	bytes_put_u64(&w, l->data_bytes);
	bytes_put_u32(&w, CHUNK_BLOCK);
	assert(!w.failed && bytes_written(&w) == USED);
	bytes_writer_init(&w, out + sizeof(magic), 4);
	bytes_put_u32(&w, crc32c(0, out + CRC_FROM, CHUNK_LABEL_BYTES - CRC_FROM));
}

int
chunk_label_decode(const uint8_t in[CHUNK_LABEL_BYTES], struct chunk_label *out)
{
	struct bytes_reader r;
	uint32_t crc, version, block;

	if (memcmp(in, magic, sizeof(magic)) != 0)
		return ERR_DISK_FOREIGN;
	bytes_reader_init(&r, in + sizeof(magic), CHUNK_LABEL_BYTES - sizeof(magic));
	crc = bytes_get_u32(&r);
	if (crc != crc32c(0, in + CRC_FROM, CHUNK_LABEL_BYTES - CRC_FROM))
		return ERR_DISK_DAMAGED;
	version = bytes_get_u32(&r);
	if (version > FSD_DISK)
		return ERR_DISK_NEWER;
	memcpy(out->disk_id.b, bytes_get_raw(&r, 16), 16);
	out->epoch = bytes_get_u64(&r);
	out->data_bytes = bytes_get_u64(&r);
	block = bytes_get_u32(&r);
	assert(!r.failed);
	if (version == 0 || block != CHUNK_BLOCK || uid128_zero(&out->disk_id) ||
	    out->data_bytes % CHUNK_BLOCK != 0 ||
	    out->data_bytes < CHUNK_DISK_BYTES_MIN ||
	    out->data_bytes / CHUNK_BLOCK > CHUNK_DISK_BLOCKS_MAX)
		return ERR_DISK_DAMAGED;
	for (size_t i = USED; i < CHUNK_LABEL_BYTES; i++)
		if (in[i] != 0)
			return ERR_DISK_DAMAGED;
	return 0;
}

int
chunk_label_choose(const uint8_t in[CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES],
    struct chunk_label *out, unsigned *stale)
{
	struct chunk_label l[CHUNK_LABEL_COPIES];
	int rc[CHUNK_LABEL_COPIES], best = -1;
	bool ours = false;

	*stale = 0;
	for (unsigned i = 0; i < CHUNK_LABEL_COPIES; i++) {
		rc[i] = chunk_label_decode(in + i * CHUNK_LABEL_BYTES, &l[i]);
		if (rc[i] == ERR_DISK_NEWER)
			return ERR_DISK_NEWER;
		ours |= rc[i] != ERR_DISK_FOREIGN;
		if (rc[i] == 0 && (best < 0 || l[i].epoch > l[best].epoch))
			best = (int)i;
	}
	if (best < 0)
		return ours ? ERR_DISK_DAMAGED : ERR_DISK_FOREIGN;
	*out = l[best];
	for (unsigned i = 0; i < CHUNK_LABEL_COPIES; i++)
		if (memcmp(in + i * CHUNK_LABEL_BYTES,
		    in + (unsigned)best * CHUNK_LABEL_BYTES, CHUNK_LABEL_BYTES) != 0)
			*stale |= 1u << i;
	return 0;
}
