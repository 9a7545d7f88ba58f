/* SPDX-License-Identifier: MIT */
/* admin_rdma.c - rows of ports out of lines like
 *	fsd_net_rdma_sends_total{role="storage",device="mlx5_0",port="1",...} 17 */
#include "roles/admin_rdma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "fsd_net_rdma_"

static struct admin_rdma_row *
add(struct admin_rdma *r, const char *node)
{
	struct admin_rdma_row *row;

	if (r->n == r->cap) {
		size_t cap = r->cap == 0 ? 16 : r->cap * 2;
		struct admin_rdma_row *more = realloc(r->rows, cap * sizeof(*more));

		if (more == NULL)
			return NULL;
		r->rows = more;
		r->cap = cap;
	}
	row = &r->rows[r->n++];
	memset(row, 0, sizeof(*row));
	strncpy(row->node, node, sizeof(row->node) - 1);
	return row;
}

int
admin_rdma_note(struct admin_rdma *r, const char *node, const char *note)
{
	struct admin_rdma_row *row = add(r, node);

	if (row == NULL)
		return -ENOMEM;
	strncpy(row->note, note, sizeof(row->note) - 1);
	return 0;
}

/* The value of label @key among {@labels}; "": there is none. */
static void
label(const char *labels, size_t n, const char *key, char out[ADMIN_RDMA_WORD])
{
	size_t key_n = strlen(key), len = 0;
	const char *end = labels + n;

	for (const char *p = labels; p < end;) {
		const char *eq = memchr(p, '=', (size_t)(end - p));
		const char *value = eq != NULL && end - eq >= 2 ? eq + 2 : end;
		const char *quote = memchr(value, '"', (size_t)(end - value));

		if (quote == NULL)
			break;
		if ((size_t)(eq - p) == key_n && memcmp(p, key, key_n) == 0) {
			len = (size_t)(quote - value);
			if (len >= ADMIN_RDMA_WORD)
				len = ADMIN_RDMA_WORD - 1;
			memcpy(out, value, len);
			break;
		}
		p = quote + 1 < end ? quote + 2 : end;
	}
	out[len] = '\0';
}

/* The row of these labels, of those from @first on. */
static struct admin_rdma_row *
row_of(struct admin_rdma *r, size_t first, const char *node, const char *labels, size_t n)
{
	struct admin_rdma_row key = { .up = 0 };
	struct admin_rdma_row *row;

	label(labels, n, "role", key.role);
	label(labels, n, "device", key.device);
	label(labels, n, "port", key.port);
	for (size_t i = first; i < r->n; i++) {
		row = &r->rows[i];
		if (strcmp(row->role, key.role) == 0 && strcmp(row->port, key.port) == 0 &&
		    strcmp(row->device, key.device) == 0)
			return row;
	}
	if ((row = add(r, node)) == NULL)
		return NULL;
	memcpy(row->role, key.role, sizeof(row->role));
	memcpy(row->device, key.device, sizeof(row->device));
	memcpy(row->port, key.port, sizeof(row->port));
	label(labels, n, "link", row->link);
	label(labels, n, "gid", row->gid);
	return row;
}

static void
set(struct admin_rdma_row *row, const char *name, size_t n, uint64_t value)
{
#define IS_(field)                                                              \
	if (n == sizeof(#field) - 1 && memcmp(name, #field, n) == 0)            \
		row->field = value;
	ADMIN_RDMA_VALUES(IS_)
}

/* A line of a port's; others say nothing to us. 0 or -ENOMEM. */
static int
take_line(struct admin_rdma *r, size_t first, const char *node, const char *line,
    size_t n)
{
	const char *name = line + sizeof(PREFIX) - 1, *open, *close;
	struct admin_rdma_row *row;
	char number[24] = "";

	if (n < sizeof(PREFIX) || memcmp(line, PREFIX, sizeof(PREFIX) - 1) != 0 ||
	    (open = memchr(line, '{', n)) == NULL ||
	    (close = memchr(open, '}', n - (size_t)(open - line))) == NULL ||
	    memmem(open, (size_t)(close - open), "device=\"", 8) == NULL)
		return 0;
	row = row_of(r, first, node, open + 1, (size_t)(close - open - 1));
	if (row == NULL)
		return -ENOMEM;
	n -= (size_t)(close + 1 - line);
	memcpy(number, close + 1, n < sizeof(number) ? n : sizeof(number) - 1);
	set(row, name, (size_t)(open - name), strtoull(number, NULL, 10));
	return 0;
}

int
admin_rdma_take(struct admin_rdma *r, const char *node, struct msg_str text)
{
	const char *p = text.p, *end = text.p + text.n;
	size_t first = r->n;
	int rc = 0;

	while (p < end && rc == 0) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const char *to = nl != NULL ? nl : end;

		rc = take_line(r, first, node, p, (size_t)(to - p));
		p = to + 1;
	}
	return rc != 0 || r->n > first ? rc : admin_rdma_note(r, node, "TCP only");
}

void
admin_rdma_fini(struct admin_rdma *r)
{
	free(r->rows);
	*r = (struct admin_rdma){ .rows = NULL };
}
