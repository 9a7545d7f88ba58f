/* SPDX-License-Identifier: MIT */
/* scratch.h - memory for what may be larger than that of the box: the first bytes are of the
 * heap, the rest is a file without a name, mapped, which the kernel writes back when it needs
 * the memory for others.  For commands that run for themselves; a page may have to be read. */
#ifndef CONF_SCRATCH_H
#define CONF_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

struct scratch;

/* @own_bytes of the heap, then a file in $TMPDIR, or /var/tmp. 0 or -ENOMEM. */
int	scratch_open(struct scratch **out, uint64_t own_bytes);
void	scratch_close(struct scratch *s);	/* and all that is in it; NULL is fine */
/* @n bytes (1..1 MiB and some), 16-aligned, contents undefined, until the end.  NULL and errno:
 * no memory, or why there is no place in the file. */
void   *scratch_get(struct scratch *s, size_t n);
/* Of all that was taken, what is in the file. */
uint64_t scratch_file_bytes(const struct scratch *s);

#endif
