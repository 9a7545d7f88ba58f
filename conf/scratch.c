/* SPDX-License-Identifier: MIT */
/* scratch.c - pieces of 4 MiB, one behind the other; space is taken before it is mapped, since
 * a page without space would be a signal. */
#include "conf/scratch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE	(4u << 20)

struct piece {
	uint8_t *mem;
	bool	 mapped;
};

struct scratch {
	uint64_t      own_bytes, heap_bytes, file_bytes;
	int	      fd;		/* -1: none yet */
	struct piece *pieces;
	size_t	      n, cap;
	uint8_t	     *at;		/* free in the last piece */
	size_t	      left;
};

int
scratch_open(struct scratch **out, uint64_t own_bytes)
{
	struct scratch *s = calloc(1, sizeof(*s));

	*out = s;
	if (s == NULL)
		return -ENOMEM;
	s->own_bytes = own_bytes;
	s->fd = -1;
	return 0;
}

void
scratch_close(struct scratch *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++)
		if (s->pieces[i].mapped)
			munmap(s->pieces[i].mem, PIECE);
		else
			free(s->pieces[i].mem);
	if (s->fd >= 0)
		close(s->fd);
	free(s->pieces);
	free(s);
}

static void *
map_piece(struct scratch *s)
{
	const char *dir = getenv("TMPDIR");
	off_t at = (off_t)s->file_bytes;
	void *mem;
	int rc;

	if (s->fd < 0)
		s->fd = open(dir != NULL && *dir != '\0' ? dir : "/var/tmp",
		    O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd < 0)
		return NULL;
	if ((rc = posix_fallocate(s->fd, at, PIECE)) != 0) {
		errno = rc;
		return NULL;
	}
	mem = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, at);
	if (mem == MAP_FAILED)
		return NULL;
	s->file_bytes += PIECE;
	return mem;
}

/* False: errno says why. */
static bool
add_piece(struct scratch *s)
{
	struct piece p = { .mapped = s->heap_bytes >= s->own_bytes };

	if (s->n == s->cap) {
		size_t cap = s->cap == 0 ? 64 : 2 * s->cap;
		struct piece *v = realloc(s->pieces, cap * sizeof(*v));

		if (v == NULL)
			return false;
		s->pieces = v;
		s->cap = cap;
	}
	if ((p.mem = p.mapped ? map_piece(s) : malloc(PIECE)) == NULL)
		return false;
	if (!p.mapped)
		s->heap_bytes += PIECE;
	s->pieces[s->n++] = p;
	s->at = p.mem;
	s->left = PIECE;
	return true;
}

void *
scratch_get(struct scratch *s, size_t n)
{
	void *p;

	n = (n + 15) & ~(size_t)15;
	assert(n > 0 && n <= PIECE);
	if (s->left < n && !add_piece(s))
		return NULL;
	p = s->at;
	s->at += n;
	s->left -= n;
	return p;
}

uint64_t
scratch_file_bytes(const struct scratch *s)
{
	return s->file_bytes;
}
