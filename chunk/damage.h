/* SPDX-License-Identifier: MIT */
/* damage.h - which chunks have stored bytes that cannot be read back as they were written:
 * what an engine remembers for those who repair.  Bounded; what is beyond the bound is found
 * again by the next read or scrub. */
#ifndef CHUNK_DAMAGE_H
#define CHUNK_DAMAGE_H

#include "chunk/index.h"
#include "conf/omap.h"

struct chunk_damages {
	struct omap map;		/* by target, inode, index -> struct value of damage.c */
	uint32_t    n;			/* those on the list */
};

void	chunk_damages_init(struct chunk_damages *d);
void	chunk_damages_fini(struct chunk_damages *d);

/* Checksum block @block of version @version of a chunk was read, and @rc says why it is
 * no good: ERR_CORRUPT or an error of the disk.  Counts, logs and remembers. */
void	chunk_damage_note(struct chunk_engine *e, target_id target, struct chunk_id id,
	    uint64_t version, uint32_t block, int rc);
/* All of the chunk was written anew, or it is gone. */
void	chunk_damage_forget(struct chunk_engine *e, target_id target, struct chunk_id id);
/* Its pending version @version was stored; @bad: 0, or 1 + the first checksum block that is
 * damaged in it, and then the chunk is on the list from when that is committed.  0, 0: the
 * pending version was dropped. */
void	chunk_damage_pend(struct chunk_engine *e, target_id target, struct chunk_id id,
	    uint64_t version, uint32_t bad);
/* All of it was written anew, by committing @version. */
void	chunk_damage_commit(struct chunk_engine *e, target_id target, struct chunk_id id,
	    uint64_t version);
/* An error of the disk that is not one of some block: it is not there any more. */
bool	chunk_disk_gone(int rc);

#endif
