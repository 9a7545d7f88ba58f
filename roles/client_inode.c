/* SPDX-License-Identifier: MIT */
/* client_inode.c - inodes this client has in use: attributes, what of their length and
 * time only we know yet, errors, waits for write-back.
 *
 * Invariants of an inode
 *  1. It lives while somebody holds a reference: handles, extents, reads, calls.
 *  2. exts is in ascending order of id; waits in ascending order of mark.
 *  3. own_end is 0 when nothing is unsettled; acked_end is 0 when wrote_n is settled_n.
 *  4. attr never goes back: its change counter rises. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct client_inode *
client_inode_find(struct client *c, ino_id ino)
{
	return map_get(&c->inodes, ino);
}

struct client_inode *
client_inode_get(struct client *c, ino_id ino)
{
	struct client_inode *i = map_get(&c->inodes, ino);

	if (i != NULL)
		return client_inode_ref(i);
	if ((i = calloc(1, sizeof(*i))) == NULL)
		return NULL;
	if (map_put(&c->inodes, ino, i) != 0) {
		free(i);
		return NULL;
	}
	i->ino = ino;
	i->c = c;
	i->refs = 1;
	list_init(&i->files);
	map_init(&i->chunks);
	list_init(&i->exts);
	list_init(&i->waits);
	return i;
}

struct client_inode *
client_inode_ref(struct client_inode *i)
{
	i->refs++;
	return i;
}

void
client_inode_put(struct client_inode *i)
{
	assert(i->refs > 0);
	if (--i->refs > 0)
		return;
	assert(list_empty(&i->exts) && i->chunks.n == 0);
	assert(list_empty(&i->files) && list_empty(&i->waits));
	map_del(&i->c->inodes, i->ino);
	map_fini(&i->chunks);
	free(i->chains);
	free(i);
}

bool
client_inode_unsettled(const struct client_inode *i)
{
	return !list_empty(&i->exts) || i->wrote_n != i->settled_n;
}

void
client_inode_settle(struct client_inode *i, uint64_t wrote_n)
{
	if (wrote_n > i->settled_n)
		i->settled_n = wrote_n;
	if (i->wrote_n == i->settled_n)
		i->acked_end = 0;
	if (!client_inode_unsettled(i))
		i->own_end = 0;
}

bool
client_inode_striped(const struct client_inode *i)
{
	const struct layout *l = &i->layout;

	return l->chunk_shift >= LAYOUT_SHIFT_MIN &&
	    l->chunk_shift <= LAYOUT_SHIFT_MAX && l->stripe > 0 &&
	    l->stripe <= LAYOUT_STRIPE_MAX;
}

/* Truncated by somebody: what storage acknowledged in the old epoch may be cut, what it has
 * not got yet will be written in the new one.  What was acknowledged is still reported, with
 * its old epoch: then metadata asks storage how much of it is left. */
static void
new_epoch(struct client_inode *i)
{
	i->own_end = 0;
	list_for_each(n, &i->exts) {
		const struct client_ext *e = list_entry(n, struct client_ext,
		    inode_node);

		if (!e->drop && e->pos + e->len > i->own_end)
			i->own_end = e->pos + e->len;
	}
}

void
client_inode_adopt(struct client_inode *i, const struct msg_attr *attr)
{
	bool first = i->attr.ino == 0;

	if (attr->ino != i->ino || (!first && attr->change < i->attr.change))
		return;
	if (!first && attr->epoch != i->attr.epoch)
		new_epoch(i);
	if (attr->size != i->attr.size || attr->mtime != i->attr.mtime ||
	    attr->epoch != i->attr.epoch)
		i->ahead_gen++;
	i->attr = *attr;
	layout_of_attr(attr, &i->layout);
}

void
client_inode_merge(const struct client_inode *i, struct msg_attr *attr)
{
	if (i->attr.ino != 0 && i->attr.change > attr->change)
		*attr = i->attr;	/* this reply was overtaken */
	if (!client_inode_unsettled(i))
		return;
	if (i->own_end > attr->size)
		attr->size = i->own_end;
	if (i->mtime_ns > attr->mtime)
		attr->mtime = i->mtime_ns;
	if (i->mtime_ns > attr->ctime)
		attr->ctime = i->mtime_ns;
}

uint64_t
client_inode_size(const struct client_inode *i)
{
	return i->own_end > i->attr.size ? i->own_end : i->attr.size;
}

chain_id
client_inode_chain(struct client_inode *i, uint32_t index)
{
	const struct routing *r = member_routing(i->c->member);
	uint32_t slot;

	if (!client_inode_striped(i))
		return 0;
	/* A table version never changes, so neither does what we keep. */
	if (i->chains == NULL) {
		const struct routing_table *t = routing_table(r,
		    i->layout.table, i->layout.table_version);

		if (t == NULL || t->chain_n == 0)
			return 0;
		i->chain_n = t->chain_n < i->layout.stripe ? t->chain_n :
		    i->layout.stripe;
		i->chains = calloc(i->chain_n, sizeof(*i->chains));
		if (i->chains == NULL)
			return layout_chain(r, &i->layout, index);
	}
	slot = index % i->chain_n;
	if (i->chains[slot] == 0)
		i->chains[slot] = layout_chain(r, &i->layout, index);
	return i->chains[slot];
}

void
client_inode_gone(struct client_inode *i)
{
	if (i->gone == 0)
		log_warn(i->c->log, "open file is gone", "ino=%llu",
		    (unsigned long long)i->ino);
	i->gone = -ESTALE;
	i->ahead_gen++;
	/* What waits to be written fails when it is sent; what was written is lost, too. */
	if (i->wrote_n != i->settled_n && i->lost_wrote != i->wrote_n)
		client_inode_failed(i, -ESTALE);
	client_inode_settle(i, i->wrote_n);
}

void
client_inode_lost(struct client_inode *i)
{
	uint64_t bytes = 0;

	i->ahead_gen++;			/* others may have written */
	if (list_empty(&i->exts) && i->wrote_n == i->settled_n)
		return;			/* nothing is at stake */
	list_for_each(n, &i->exts)
		bytes += list_entry(n, struct client_ext, inode_node)->len;
	i->failed = true;
	list_for_each(n, &i->files) {
		struct client_file *f = list_entry(n, struct client_file,
		    inode_node);

		if ((f->flags & O_ACCMODE) != O_RDONLY && f->err == 0)
			f->err = -EIO;
	}
	/* What storage has acknowledged is there, and is settled with the next flush; but
	 * others may have written since, so it counts as lost. */
	if (i->lost_id == i->c->ext_id && i->lost_wrote == i->wrote_n)
		return;			/* said so for another handle */
	i->lost_id = i->c->ext_id;
	i->lost_wrote = i->wrote_n;
	log_error(i->c->log, "unsaved data is lost: session ended",
	    "ino=%llu unwritten_bytes=%llu unsynced_writes=%llu",
	    (unsigned long long)i->ino, (unsigned long long)bytes,
	    (unsigned long long)(i->wrote_n - i->settled_n));
}

void
client_inode_failed(struct client_inode *i, int rc)
{
	bool told = false;

	i->failed = true;
	list_for_each(n, &i->files) {
		struct client_file *f = list_entry(n, struct client_file,
		    inode_node);

		if (f->err == 0)
			f->err = rc;
		told = true;
	}
	log_warn(i->c->log, "write-back failed", "ino=%llu why=\"%s\"%s",
	    (unsigned long long)i->ino, err_text(rc),
	    told ? "" : " nobody has it open");
}

bool
client_inode_flush(struct client_inode *i, struct client_wait *w,
    void (*fn)(struct client_wait *))
{
	struct client_ext *last;

	if (list_empty(&i->exts))
		return true;
	list_for_each(n, &i->exts) {
		struct client_ext *e = list_entry(n, struct client_ext,
		    inode_node);

		if (e->state == EXT_DIRTY)
			client_ext_ready(e);
	}
	last = list_entry(i->exts.prev, struct client_ext, inode_node);
	w->mark = last->id;
	w->fn = fn;
	list_push_back(&i->waits, &w->node);
	return false;
}

void
client_inode_wake(struct client_inode *i)
{
	uint64_t oldest = list_empty(&i->exts) ? UINT64_MAX :
	    list_entry(i->exts.next, struct client_ext, inode_node)->id;

	client_inode_ref(i);		/* the last waiter may let go of it */
	while (!list_empty(&i->waits)) {
		struct client_wait *w = list_entry(i->waits.next,
		    struct client_wait, node);

		if (w->mark >= oldest)
			break;
		list_remove(&w->node);
		w->fn(w);
	}
	client_inode_put(i);
}

/* ---- attributes ---- */

static void
refreshed(struct client_mcall *m, int rc, const void *rep)
{
	struct client_inode *i = m->inode;

	i->refreshing = false;
	if (rc == 0)
		client_mcall_entry(m, rep);
	else if (rc == -ENOENT || rc == -ESTALE)
		client_inode_gone(i);
	client_mcall_end(m, rc);
}

void
client_inode_refresh(struct client_inode *i)
{
	struct client_mcall *m;

	if (i->refreshing)
		return;
	m = client_mcall_new(i->c, NULL, NULL, MSG_getattr, NULL, 0);
	if (m == NULL)
		return;			/* the write asks again */
	i->refreshing = true;
	m->inode = client_inode_ref(i);
	m->req.ino.ino = i->ino;
	m->done = refreshed;
	client_mcall_send(m, false);
}

static void
setattr_done(struct client_mcall *m, int rc, const void *rep)
{
	const struct msg_entry_rep *r = rep;
	struct client_inode *i = m->inode != NULL ? m->inode :
	    client_inode_find(m->c, m->req.setattr.ino);

	if (rc == 0) {
		client_seen_step(m->c, r->attr.ino, r->attr.change);
		if (m->inode != NULL)
			client_inode_settle(m->inode, m->wrote_n);
		/* Times that were set stay, whatever we still have to settle. */
		if (i != NULL && (m->req.setattr.valid &
		    (META_SET_MTIME | META_SET_MTIME_NOW)) != 0)
			i->mtime_ns = r->attr.mtime;
		client_mcall_entry(m, rep);
	}
	client_mcall_end(m, rc);
}

static void
setattr_flushed(struct client_wait *w)
{
	struct client_mcall *m = container_of(w, struct client_mcall, wait);

	m->waiting = false;
	m->wrote_n = m->inode->wrote_n;
	client_mcall_send(m, true);
}

void
client_setattr(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino, const struct msg_setattr *set)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_setattr, cred,
	    0);
	struct client_inode *i = client_inode_find(c, ino);
	struct msg_ctx ctx;

	if (m == NULL)
		return;
	ctx = m->req.ctx;
	m->req.setattr = *set;
	m->req.setattr.ctx = ctx;
	m->req.setattr.ino = ino;
	m->done = setattr_done;
	if ((set->valid & META_SET_SIZE) != 0 && i != NULL) {
		m->inode = client_inode_ref(i);
		i->ahead_gen++;
		if (client_inode_flush(i, &m->wait, setattr_flushed))
			setattr_flushed(&m->wait);
		else
			m->waiting = true;
		return;
	}
	client_mcall_send(m, true);
}

/* ---- what the kernel has seen ---- */

struct seen {
	ino_id	    ino;
	uint64_t    change;
	struct list node;
};

bool
client_seen_same(struct client *c, ino_id ino, uint64_t change)
{
	const struct seen *s = map_get(&c->seen, ino);

	return s != NULL && s->change == change;
}

void
client_seen_set(struct client *c, ino_id ino, uint64_t change)
{
	struct seen *s = map_get(&c->seen, ino);

	if (s == NULL) {
		if (c->seen.n >= CLIENT_SEEN_MAX) {
			s = list_entry(c->seen_lru.next, struct seen, node);
			map_del(&c->seen, s->ino);
			list_remove(&s->node);
		} else if ((s = calloc(1, sizeof(*s))) == NULL)
			return;		/* forgetting is always right */
		else
			list_init(&s->node);
		s->ino = ino;
		if (map_put(&c->seen, ino, s) != 0) {
			free(s);
			return;
		}
	}
	s->change = change;
	list_remove(&s->node);
	list_push_back(&c->seen_lru, &s->node);
}

void
client_seen_step(struct client *c, ino_id ino, uint64_t change)
{
	struct seen *s = map_get(&c->seen, ino);

	if (s != NULL && s->change + 1 == change)
		s->change = change;
}

void
client_seen_fini(struct client *c)
{
	struct list *n;

	while ((n = list_pop_front(&c->seen_lru)) != NULL)
		free(list_entry(n, struct seen, node));
	map_fini(&c->seen);
}
