/* SPDX-License-Identifier: MIT */
/* check_image.c - the tables of metadata: a frozen image is read page by page into memory.
 *
 * Its rows come in the order of their keys, so they are kept one behind the other in blocks,
 * and found by bisection: some 170 bytes for a file with a short name, of which no more than
 * OWN_BYTES are in memory that nobody else can have. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/scratch.h"
#include "meta/key.h"
#include "roles/check_impl.h"

#define BLOCK_BYTES	8192u
#define OWN_BYTES	(1ull << 30)
#define ROW_HEAD	8u	/* length of key u32, of value u32 */

/* ---- a store that is written once, in order ---- */

struct block {
	uint8_t	*bytes;
	uint32_t n, cap;
};

struct check_run {
	struct table_store store;
	struct scratch	  *bytes;
	struct block	  *blocks;
	size_t		   n, cap;
};

struct row {
	const uint8_t *key, *value;
	uint32_t key_len, value_len;
};

static struct row
row_at(const struct block *b, uint32_t at)
{
	struct row r = { .key = b->bytes + at + ROW_HEAD };

	memcpy(&r.key_len, b->bytes + at, sizeof(r.key_len));
	memcpy(&r.value_len, b->bytes + at + 4, sizeof(r.value_len));
	r.value = r.key + r.key_len;
	return r;
}

static uint32_t
row_bytes(const struct row *r)
{
	return ROW_HEAD + r->key_len + r->value_len;
}

static int
cmp(const struct row *r, const void *key, size_t key_len)
{
	size_t n = r->key_len < key_len ? r->key_len : key_len;
	int d = memcmp(r->key, key, n);

	return d != 0 ? d : r->key_len < key_len ? -1 : r->key_len > key_len;
}

/* First row that is not before @key (@after: behind it). */
static bool
find(const struct check_run *s, const void *key, size_t key_len, bool after,
    struct row *out)
{
	size_t from = 0, to = s->n;

	while (from < to) {		/* blocks that begin behind @key: from @to on */
		size_t at = from + (to - from) / 2;
		struct row first = row_at(&s->blocks[at], 0);

		if (cmp(&first, key, key_len) <= 0)
			from = at + 1;
		else
			to = at;
	}
	for (size_t i = from > 0 ? from - 1 : 0; i < s->n; i++) {
		const struct block *b = &s->blocks[i];

		for (uint32_t at = 0; at < b->n; at += row_bytes(out)) {
			int d;

			*out = row_at(b, at);
			d = cmp(out, key, key_len);
			if (d > 0 || (d == 0 && !after))
				return true;
		}
	}
	return false;
}

static struct check_run *
run_of(struct table_store *s)
{
	return container_of(s, struct check_run, store);
}

static int
run_get(struct table_store *s, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	struct row r;

	if (!find(run_of(s), key, key_len, false, &r) || cmp(&r, key, key_len) != 0)
		return -ENOENT;
	*value = r.value;
	*value_len = r.value_len;
	return 0;
}

static int
run_seek(struct table_store *s, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	struct row r;

	if (!find(run_of(s), key, key_len, after, &r))
		return -ENOENT;
	*found = r.key;
	*found_len = r.key_len;
	*value = r.value;
	*value_len = r.value_len;
	return 0;
}

static uint64_t
run_used(struct table_store *s)
{
	return run_of(s)->n * (uint64_t)BLOCK_BYTES;
}

static bool
run_close(struct table_store *store)
{
	struct check_run *s = run_of(store);

	scratch_close(s->bytes);
	free(s->blocks);
	free(s);
	return true;
}

/* Nothing is ever committed, and no image is made of it. */
static const struct table_store_ops run_ops = {
	.get = run_get, .seek = run_seek, .used = run_used, .close = run_close,
};

static int
new_block(struct check_run *s, uint32_t bytes)
{
	struct block *b;

	if (s->n == s->cap) {
		size_t cap = s->cap == 0 ? 64 : s->cap + s->cap / 2;

		if ((b = realloc(s->blocks, cap * sizeof(*b))) == NULL)
			return -ENOMEM;
		s->blocks = b;
		s->cap = cap;
	}
	b = &s->blocks[s->n];
	*b = (struct block){ .cap = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES };
	if ((b->bytes = scratch_get(s->bytes, b->cap)) == NULL)
		return -errno;
	s->n++;
	return 0;
}

/* Behind all that is there. 0, -ENOMEM, -errno of the file. */
static int
append(struct check_run *s, const struct msg_image_row *row)
{
	uint32_t bytes = ROW_HEAD + row->key.n + row->value.n;
	struct block *b = s->n == 0 ? NULL : &s->blocks[s->n - 1];
	uint8_t *p;

	if (b == NULL || b->cap - b->n < bytes) {
		int rc = new_block(s, bytes);

		if (rc != 0)
			return rc;
		b = &s->blocks[s->n - 1];
	}
	p = b->bytes + b->n;
	memcpy(p, &row->key.n, sizeof(row->key.n));
	memcpy(p + 4, &row->value.n, sizeof(row->value.n));
	memcpy(p + ROW_HEAD, row->key.p, row->key.n);
	if (row->value.n > 0)
		memcpy(p + ROW_HEAD + row->key.n, row->value.p, row->value.n);
	b->n += bytes;
	return 0;
}

/* ---- pages ---- */

static void ask(struct clock_timer *t);

/* Does @key come behind the last one? A server that says otherwise would have us for ever. */
static bool
behind(const struct check *c, const struct msg_str *key)
{
	size_t n = key->n < c->after.n ? key->n : c->after.n;
	int d = memcmp(key->p, c->after_key, n);

	return d != 0 ? d > 0 : key->n > c->after.n;
}

/* Row by row; what is not of the tree is of no interest. 0, ERR_BAD_MESSAGE, as append(). */
static int
take(struct check *c, const struct msg_image_rep *rep)
{
	struct check_range *r = &c->range;

	memcpy(r->after, c->after_key, r->after_n = c->after.n);
	r->digest = r->rows_n = 0;
	for (uint32_t i = 0; i < rep->rows.n; i++) {
		const struct msg_image_row *row = &rep->rows.v[i];
		int rc;

		if (row->key.n == 0 || row->key.n > TABLE_KEY_MAX ||
		    row->value.n > TABLE_VALUE_MAX || !behind(c, &row->key))
			return ERR_BAD_MESSAGE;
		memcpy(c->after_key, row->key.p, row->key.n);
		c->after = (struct msg_str){ c->after_key, row->key.n };
		if (row->key.p[0] == 0)		/* the member's own */
			continue;
		r->digest = key_digest(r->digest, row->key.p, row->key.n,
		    row->value.p, row->value.n);
		r->rows_n++;
		if (row->key.p[0] == KEY_ONCE)
			continue;
		if ((rc = append(c->run, row)) != 0)
			return rc;
	}
	r->more = rep->more != 0;
	r->until_n = r->more ? c->after.n : 0;
	memcpy(r->until, c->after_key, r->until_n);
	return rep->rows.n == 0 && rep->more ? ERR_BAD_MESSAGE : 0;
}

void
check_image_again(struct check *c, int rc)
{
	if (c->restarts++ >= CHECK_RESTARTS) {
		check_end(c, rc);
		return;
	}
	check_image_close(c);
	check_image_start(c);
}

void
check_image_next(struct check *c)
{
	if (c->range.more)
		check_later(c, 0, ask);
	else
		check_compare_end(c);
}

static void
again(struct check *c)
{
	check_later(c, CHECK_PAUSE_NS, ask);
}

static void
answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	const struct msg_image_rep *rep = call->rep;
	struct net_addr from;

	if (rc == 0) {
		c->heard_ns = c->meta_ns = clock_now(c->env.clock);
		if (c->image == 0 && check_server(c, &from) == 0)
			check_compare_begin(c, &from);
		c->image = c->instead = rep->image;
		c->waits = false;
		rc = take(c, rep);
		if (rc != 0)
			check_end(c, rc);
		else
			check_compare_range(c);
		return;
	}
	if (rc == -EBUSY && c->image == 0) {
		if (!c->waits)
			check_note(c, "another fsd check reads the tables of metadata: waits");
		c->waits = true;
		c->heard_ns = c->meta_ns = clock_now(c->env.clock);
		check_later(c, CHECK_PAUSE_NS, ask);
		return;
	}
	if ((rc != -ESTALE && err_next(rc) == ERR_NEXT_FAIL) ||
	    check_silent(c, c->meta_ns)) {
		check_end(c, rc);
		return;
	}
	if (rc == ERR_BUSY) {		/* it does not show yet what was done */
		check_later(c, CHECK_PAUSE_NS, ask);
		return;
	}
	if (c->image != 0) {		/* or it died with the server that held it */
		check_image_again(c, rc);
		return;
	}
	c->meta_at++;
	check_route(c, again);
}

static void
ask(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);
	struct msg_image q = { .image = c->image, .after = c->after,
		.index = c->index, .instead = c->instead };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	struct net_addr to;
	int rc = check_server(c, &to);

	if (rc == 0)
		rc = net_call_start(&c->call, c->env.hub, &to, MSG_image, &q, &opts,
		    answered);
	if (rc != 0)
		check_end(c, rc);
}

void
check_image_start(struct check *c)
{
	int rc;

	assert(c->table == NULL);
	c->image = 0;
	c->meta_ns = clock_now(c->env.clock);
	c->after = (struct msg_str){ c->after_key, 0 };
	if ((c->run = calloc(1, sizeof(*c->run))) == NULL ||
	    scratch_open(&c->run->bytes, OWN_BYTES) != 0) {
		free(c->run);
		c->run = NULL;
		check_end(c, -ENOMEM);
		return;
	}
	c->run->store.ops = &run_ops;
	rc = table_open(&c->table, &c->run->store, c->env.clock);
	if (rc != 0)
		check_end(c, rc);
	else
		again(c);
}

void
check_image_close(struct check *c)
{
	table_close(c->table);
	c->table = NULL;
	c->run = NULL;
}
