/* SPDX-License-Identifier: MIT */
/* client_write.c - written data on its way to storage.
 *
 *	            filled, old, memory short,        its turn in the chunk,
 *	            flush, direct                     a slot is free
 *	EXT_DIRTY ------------------------> EXT_READY ----------------> EXT_SENDING
 *	  ^ takes appends and overwrites      ^ the same                  | answered
 *	                                                                  v gone
 * An extent is a contiguous range of one chunk.  Invariants
 *  1. The extents of a chunk are in the order their bytes were written where they
 *     overlap: a write goes into an extent only if no later one overlaps it.
 *  2. Only the first extent of a chunk is sent, and it is not changed any more.
 *  3. When an extent is not EXT_DIRTY, none before it in its chunk is.
 *  4. Every extent is in the list of its state: c->age (oldest first; dirty_bytes is its
 *     memory), c->pending or c->sending. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "roles/client_stripe.h"

#define MERGE_LOOK	16u		/* extents looked at for one to extend */
#define GROW		8u		/* a buffer that is too small grows this much */
#define GROW_AT_ONCE	(64u << 10)	/* writes from here on look like a stream */
#define DIRECT_MOST	(16u << 20)	/* bytes of one direct write */
#define TRIES_MAX	8u		/* at what should be repaired by then */

/* A direct write: its data is the caller's until all of it is stored. */
struct client_direct {
	struct list	  node;		/* c->directs */
	struct client_io *io;
	uint64_t	  len;
	uint32_t	  left;
	int		  rc;
};

static void	chunk_kick(struct client_chunk *ch);
static void	ext_send(struct client_ext *e);

static size_t
bytes_max(const struct client *c)
{
	return c->conf->client_memory / 2;
}

/* ---- the end of an extent ---- */

static void
direct_part(struct client *c, struct client_direct *d, int rc)
{
	if (d->rc == 0)
		d->rc = rc;
	if (--d->left > 0)
		return;
	d->io->done = d->len;
	list_remove(&d->node);
	client_io_finish(c, d->io, d->rc);
	free(d);
}

void
client_ext_put(struct client_ext *e)
{
	struct client *c = e->c;

	if (--e->refs > 0)
		return;
	client_mem_put(c, &e->buf);
	client_keep_put(&c->ext_keep, &e->node);
}

static void
release_writers(struct client *c)
{
	struct list *n;

	while (c->ext_bytes <= bytes_max(c) &&
	    (n = list_pop_front(&c->write_waits)) != NULL)
		client_io_finish(c, list_entry(n, struct client_io, node), 0);
}

static void
start_waiting(struct client *c)
{
	struct list *n;

	while (c->sending_n < CLIENT_WRITES_MAX &&
	    (n = list_pop_front(&c->ready_chunks)) != NULL)
		chunk_kick(list_entry(n, struct client_chunk, node));
}

/* Take it out of all that knows it, without a word to anybody. */
static void
ext_unhook(struct client_ext *e)
{
	struct client *c = e->c;

	client_pause_stop(c, &e->pause);
	list_remove(&e->node);
	list_remove(&e->chunk_node);
	list_remove(&e->inode_node);
	c->ext_n--;
	c->ext_bytes -= e->buf.size;
	stat_set(&c->stat.dirty_bytes, c->ext_bytes);
	if (e->state == EXT_DIRTY)
		c->dirty_bytes -= e->buf.size;
}

static void
chunk_free(struct client_chunk *ch)
{
	struct client *c = ch->inode->c;

	list_remove(&ch->node);
	map_del(&ch->inode->chunks, ch->index);
	client_keep_put(&c->chunk_keep, &ch->node);
}

static void
ext_done(struct client_ext *e, int rc)
{
	struct client *c = e->c;
	struct client_inode *i = e->inode;
	struct client_chunk *ch = e->chunk;
	uint64_t end = e->pos + e->len;

	ext_unhook(e);
	stat_add(&c->stat.store_errors, rc != 0);
	if (rc == 0 && !e->drop) {
		stat_add(&c->stat.stores, 1);
		stat_add(&c->stat.stored_bytes, e->len);
		stat_hist_add(&c->stat.write_ns, clock_now(c->clock) - e->start_ns);
		if (end > i->acked_end)
			i->acked_end = end;
		if (end > i->own_end)
			i->own_end = end;
		if (i->wrote_n++ == i->settled_n)
			i->acked_epoch = e->epoch;
	} else if (rc != 0 && e->direct == NULL)
		client_inode_failed(i, rc);
	if (e->direct != NULL)
		direct_part(c, e->direct, rc);
	client_inode_settle(i, 0);
	e->inode = NULL;
	e->chunk = NULL;
	e->direct = NULL;
	client_ext_put(e);
	if (list_empty(&ch->exts))
		chunk_free(ch);
	else
		chunk_kick(ch);
	client_inode_wake(i);
	client_inode_put(i);
	start_waiting(c);
	release_writers(c);
	client_check_stopped(c);
}

/* ---- sending ---- */

static void
resend(struct client_pause *p)
{
	struct client_ext *e = container_of(p, struct client_ext, pause);

	if (e->rc != 0 || e->drop)
		ext_done(e, e->drop ? 0 : e->rc);
	else {
		stat_add(&e->c->stat.retries, 1);
		ext_send(e);
	}
}

/* Fail it, but not from here: somebody may be walking over extents. */
static void
fail_later(struct client_ext *e, int rc)
{
	e->rc = rc;
	client_pause_start(e->c, &e->pause, false, resend);
}

static void
sent(struct net_call *call, int rc)
{
	struct client_ext *e = container_of(call, struct client_ext, call);
	struct client *c = e->c;
	bool again = client_retryable(rc) || rc == ERR_STALE_EPOCH;
	bool at_once;

	c->sending_n--;
	if (e->given_up) {
		e->given_up = false;
		ext_send(e);
		start_waiting(c);
		return;
	}
	at_once = client_relay_ended(e, rc);
	if ((rc == ERR_CORRUPT || rc == ERR_PAYLOAD_CRC) &&
	    ++e->tries > TRIES_MAX)
		again = false;
	if (rc == ERR_STALE_EPOCH && e->drop)
		ext_done(e, 0);
	else if (rc == 0 || !again || client_expired(c, e->start_ns))
		ext_done(e, rc);
	else if (at_once) {
		stat_add(&c->stat.retries, 1);
		ext_send(e);
	} else {
		/* A truncation we had not heard of: what was written here came after
		 * it for all this client knows, so it goes again in the new epoch. */
		if (rc == ERR_STALE_EPOCH)
			client_inode_refresh(e->inode);
		client_pause_start(c, &e->pause, err_next(rc) ==
		    ERR_NEXT_REFRESH || err_next(rc) == ERR_NEXT_OTHER, resend);
	}
	start_waiting(c);
}

static void
ext_send(struct client_ext *e)
{
	struct client *c = e->c;
	struct client_inode *i = e->inode;
	const struct routing *r = member_routing(c->member);
	const struct routing_chain *chain;
	struct net_call_opts opts = { .deadline_ns = client_deadline(c),
		.send = &e->iov, .send_n = 1 };
	struct msg_write req;
	int rc;

	if (i->gone != 0 || e->drop || e->lost) {
		fail_later(e, i->gone != 0 || e->drop ? i->gone : -EIO);
		return;
	}
	if (e->seq == 0) {
		e->seq = ++c->write_seq;
		e->start_ns = clock_now(c->clock);
		e->crc = crc32c(0, e->data, e->len);
	}
	e->epoch = i->attr.epoch;
	e->iov = (struct iovec){ (void *)(uintptr_t)e->data, e->len };
	e->chain = client_inode_chain(i, e->chunk->index);
	chain = routing_chain(r, e->chain);
	rc = chain == NULL ? -EHOSTUNREACH : client_relay_route(e, chain);
	if (rc == 0) {
		req = (struct msg_write){
			.chain = chain->id, .chain_version = chain->version,
			.target = e->way.target, .client = c->id, .seq = e->seq,
			.chunk = { i->ino, e->chunk->index },
			.chunk_shift = i->layout.chunk_shift,
			.epoch = e->epoch, .offset = e->off,
			.len = e->len, .crc = e->crc,
			.epoch_at = chain->changed <= i->epoch_routing ?
			    chain->version : 1,
			.via = e->way.via, .at = i->epoch_at };
		rc = net_call_start(&e->call, c->env.hub, &e->way.addr, MSG_write, &req,
		    &opts, sent);
		if (rc == 0) {
			c->sending_n++;
			client_relay_sent(e);
			return;
		}
	}
	if (client_retryable(rc) && !client_expired(c, e->start_ns))
		client_pause_start(c, &e->pause,
		    err_next(rc) == ERR_NEXT_REFRESH, resend);
	else
		fail_later(e, rc);
}

/* Send the first extent of @ch when it may go. */
static void
chunk_kick(struct client_chunk *ch)
{
	struct client *c = ch->inode->c;
	struct client_ext *e;

	if (list_empty(&ch->exts))
		return;
	e = list_entry(ch->exts.next, struct client_ext, chunk_node);
	if (e->state != EXT_READY)	/* not asked for, or under way */
		return;
	list_remove(&ch->node);
	if (c->sending_n >= CLIENT_WRITES_MAX) {
		list_push_back(&c->ready_chunks, &ch->node);
		return;
	}
	e->state = EXT_SENDING;
	list_remove(&e->node);
	list_push_back(&c->sending, &e->node);
	ext_send(e);
}

void
client_ext_ready(struct client_ext *e)
{
	struct client *c = e->c;
	struct client_chunk *ch = e->chunk;

	for (struct list *n = &e->chunk_node; n != &ch->exts; n = n->prev) {
		struct client_ext *b = list_entry(n, struct client_ext,
		    chunk_node);

		if (b->state != EXT_DIRTY)
			break;
		b->state = EXT_READY;
		list_remove(&b->node);
		list_push_back(&c->pending, &b->node);
		c->dirty_bytes -= b->buf.size;
	}
	chunk_kick(ch);
}

bool
client_ext_under_way(const struct client_ext *e)
{
	return net_call_active(&e->call) && !e->given_up;
}

/* True: its call has ended; false: it will, in sent(), when nobody reads its data any more. */
static bool
give_up(struct client_ext *e)
{
	if (!net_call_abandon(&e->call)) {
		e->given_up = true;
		return false;
	}
	e->c->sending_n--;
	return true;
}

void
client_ext_drop(struct client_inode *i, uint64_t mark)
{
	list_for_each(n, &i->exts) {
		struct client_ext *e = list_entry(n, struct client_ext,
		    inode_node);

		if (e->id > mark)
			break;
		if (e->direct != NULL)
			continue;	/* its writer still waits: both are right */
		e->drop = true;
		if (e->state == EXT_DIRTY)
			client_ext_ready(e);
	}
}

void
client_write_lost(struct client *c)
{
	struct list *const all[] = { &c->age, &c->pending, &c->sending };

	/* What waits for its turn ends when that comes, in its order; nobody is called
	 * back from here. */
	for (unsigned k = 0; k < 3; k++)
		list_for_each(n, all[k]) {
			struct client_ext *e = list_entry(n, struct client_ext,
			    node);

			if (e->direct != NULL)
				e->lost = true;
			else
				e->drop = true;
		}
	while (!list_empty(&c->age))
		client_ext_ready(list_entry(c->age.next, struct client_ext,
		    node));
	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (client_ext_under_way(e))
			(void)give_up(e);
		if (!e->given_up)
			fail_later(e, e->drop ? 0 : -EIO);
	}
	start_waiting(c);
}

void
client_ext_resend(struct client_ext *e, bool silent)
{
	if (silent) {
		net_call_cancel(&e->call);
		e->c->sending_n--;
	}
	stat_add(&e->c->stat.retries, 1);
	if (silent || give_up(e))
		ext_send(e);		/* the same seq: it acts once */
}

/* @e waits for who may answer it. */
static bool
well_sent(const struct client_ext *e, const struct routing_chain *chain)
{
	unsigned n = chain == NULL ? 0 : routing_active_n(chain);

	if (n == 0 || chain->targets[0] != e->way.target)
		return false;
	for (unsigned i = 1; i < n; i++)
		if (chain->targets[i] == e->way.via)
			return true;
	return e->way.via == 0;
}

static bool
is_down(const struct routing *r, node_id node)
{
	const struct routing_node *n = routing_node(r, node);

	return n == NULL || n->state != NODE_UP;
}

void
client_write_reroute(struct client *c)
{
	const struct routing *r = member_routing(c->member);

	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (client_ext_under_way(e) &&
		    !well_sent(e, routing_chain(r, e->chain)))
			client_ext_resend(e, is_down(r, e->way.node));
	}
}

/* ---- age and memory ---- */

static void	age_arm(struct client *c);

static void
age_over(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, age_timer);
	uint64_t ns = c->conf->client_write_back * NS_PER_MS;

	c->age_armed = false;
	while (!list_empty(&c->age)) {
		struct client_ext *e = list_entry(c->age.next,
		    struct client_ext, node);

		if (e->born_ns + ns > clock_now(c->clock))
			break;
		client_ext_ready(e);
	}
	age_arm(c);
}

static void
age_arm(struct client *c)
{
	struct client_ext *e;

	if (c->age_armed || list_empty(&c->age))
		return;
	e = list_entry(c->age.next, struct client_ext, node);
	c->age_armed = true;
	clock_timer_start(c->clock, &c->age_timer, e->born_ns +
	    c->conf->client_write_back * NS_PER_MS, age_over);
}

/* Keep what nobody has asked for small; the oldest goes first. */
static void
shed(struct client *c)
{
	size_t max = c->conf->client_memory / 8;

	while (!list_empty(&c->age) && (c->dirty_bytes > max ||
	    c->conf->client_write_back == 0))
		client_ext_ready(list_entry(c->age.next, struct client_ext,
		    node));
}

void
client_write_all(struct client *c)
{
	while (!list_empty(&c->age))
		client_ext_ready(list_entry(c->age.next, struct client_ext,
		    node));
}

/* ---- making extents ---- */

static struct client_chunk *
chunk_get(struct client_inode *i, uint32_t index)
{
	struct client *c = i->c;
	struct client_chunk *ch = map_get(&i->chunks, index);

	if (ch != NULL)
		return ch;
	ch = client_keep_get(&c->chunk_keep, sizeof(*ch));
	if (ch == NULL)
		return NULL;
	memset(ch, 0, sizeof(*ch));
	list_init(&ch->node);
	list_init(&ch->exts);
	ch->inode = i;
	ch->index = index;
	if (map_put(&i->chunks, index, ch) != 0) {
		client_keep_put(&c->chunk_keep, &ch->node);
		return NULL;
	}
	return ch;
}

/* A new extent at the end of @ch, not in c->age yet. */
static struct client_ext *
ext_new(struct client_chunk *ch, uint32_t off, uint32_t len)
{
	struct client_inode *i = ch->inode;
	struct client *c = i->c;
	struct client_ext *e = client_keep_get(&c->ext_keep, sizeof(*e));

	if (e == NULL)
		return NULL;
	memset(e, 0, sizeof(*e));
	list_init(&e->node);
	e->c = c;
	e->inode = client_inode_ref(i);
	e->chunk = ch;
	e->id = ++c->ext_id;
	e->born_ns = clock_now(c->clock);
	e->pos = ((uint64_t)ch->index << i->layout.chunk_shift) + off;
	e->off = off;
	e->len = len;
	e->refs = 1;
	list_push_back(&ch->exts, &e->chunk_node);
	list_push_back(&i->exts, &e->inode_node);
	c->ext_n++;
	return e;
}

/* How much memory for @need bytes of the @room that the extent may ever have. */
static uint32_t
size_for(uint32_t need, uint32_t room, bool grow)
{
	if (!grow || need > room / GROW)
		return grow ? room : need;
	return need * GROW;
}

/* Give @e room for @need bytes. */
static int
ext_grow(struct client_ext *e, uint32_t need, uint32_t room)
{
	struct client *c = e->c;
	struct mem_buf b;
	int rc;

	if (need <= e->buf.size)
		return 0;
	if (client_mem_get(c, size_for(need, room, true), false, &b) != 0 &&
	    (rc = client_mem_get(c, need, true, &b)) != 0)
		return rc;
	memcpy(b.p, e->data, e->len);
	stat_add(&c->stat.copied_bytes, e->len);
	c->ext_bytes += b.size - e->buf.size;
	stat_set(&c->stat.dirty_bytes, c->ext_bytes);
	if (e->state == EXT_DIRTY)
		c->dirty_bytes += b.size - e->buf.size;
	client_mem_put(c, &e->buf);
	e->buf = b;
	e->data = b.p;
	return 0;
}

/* Bytes from the start of an extent at @off to the end of its block. */
static uint32_t
room_at(const struct client_inode *i, uint32_t off)
{
	uint32_t block = 1u << i->layout.chunk_shift;

	if (block > CLIENT_BLOCK_MAX)
		block = CLIENT_BLOCK_MAX;
	return block - (off & (block - 1));
}

/* The extent that may take [off, off + len) of @ch (invariants 1 and 2), or NULL. */
static struct client_ext *
find_mergeable(struct client_chunk *ch, uint32_t off, uint32_t len)
{
	unsigned looked = 0;

	for (struct list *n = ch->exts.prev; n != &ch->exts; n = n->prev) {
		struct client_ext *e = list_entry(n, struct client_ext,
		    chunk_node);

		if (e->state == EXT_SENDING || looked++ >= MERGE_LOOK)
			return NULL;
		if (e->direct == NULL && !e->drop && off >= e->off &&
		    off <= e->off + e->len &&
		    off - e->off + len <= room_at(ch->inode, e->off))
			return e;
		if (off < e->off + e->len && e->off < off + len)
			return NULL;
	}
	return NULL;
}

static int
put_piece(struct client_inode *i, const struct client_piece *p,
    const uint8_t *data)
{
	struct client *c = i->c;
	struct client_chunk *ch = chunk_get(i, p->index);
	uint32_t room = room_at(i, p->offset);
	struct client_ext *e;
	struct mem_buf b;
	int rc;

	if (ch == NULL)
		return -ENOMEM;
	if ((e = find_mergeable(ch, p->offset, p->len)) != NULL) {
		uint32_t at = p->offset - e->off, end = at + p->len;

		if ((rc = ext_grow(e, end, room_at(i, e->off))) != 0)
			return rc;
		memcpy(e->buf.p + at, data, p->len);
		stat_add(&c->stat.copied_bytes, p->len);
		if (end > e->len)
			e->len = end;
	} else {
		bool grow = p->len >= GROW_AT_ONCE;

		rc = client_mem_get(c, size_for(p->len, room, grow), false, &b);
		if (rc != 0)
			rc = client_mem_get(c, p->len, true, &b);
		e = rc == 0 ? ext_new(ch, p->offset, p->len) : NULL;
		if (e == NULL) {
			client_mem_put(c, &b);
			if (list_empty(&ch->exts))
				chunk_free(ch);
			return -ENOMEM;
		}
		e->buf = b;
		e->data = b.p;
		memcpy(b.p, data, p->len);
		stat_add(&c->stat.copied_bytes, p->len);
		c->ext_bytes += b.size;
		stat_set(&c->stat.dirty_bytes, c->ext_bytes);
		c->dirty_bytes += b.size;
		list_push_back(&c->age, &e->node);
	}
	/* Filled to the end of its block: a stream goes on elsewhere. */
	if (e->state == EXT_DIRTY && p->len == room)
		client_ext_ready(e);
	return 0;
}

static int
put_direct(struct client_inode *i, const struct client_piece *p,
    const uint8_t *data, struct client_direct *d)
{
	struct client_chunk *ch = chunk_get(i, p->index);
	struct client *c = i->c;
	struct client_ext *e;

	if (ch == NULL)
		return -ENOMEM;
	if (!list_empty(&ch->exts))	/* what was written before goes before */
		client_ext_ready(list_entry(ch->exts.prev, struct client_ext,
		    chunk_node));
	if ((e = ext_new(ch, p->offset, p->len)) == NULL) {
		if (list_empty(&ch->exts))
			chunk_free(ch);
		return -ENOMEM;
	}
	e->data = data;
	e->direct = d;
	d->left++;
	e->state = EXT_READY;
	list_push_back(&c->pending, &e->node);
	chunk_kick(ch);
	return 0;
}

void
client_write(struct client_file *f, struct client_io *io, client_io_fn *fn,
    uint64_t off, const void *data, uint64_t len, bool direct)
{
	struct client_inode *i = f->inode;
	struct client *c = i->c;
	struct client_direct *d = NULL;
	struct client_stripe s;
	struct client_piece p;
	int rc = 0;

	io->fn = fn;
	io->done = 0;
	io->iov = NULL;
	io->iov_n = 0;
	if ((f->flags & O_ACCMODE) == O_RDONLY)
		rc = -EBADF;
	else if (f->err != 0)
		rc = f->err;		/* stop a writer that lost data already */
	else if (i->gone != 0)
		rc = i->gone;
	else if (!client_inode_striped(i))
		rc = -EIO;
	else
		rc = client_stripe_init(&s, i->layout.chunk_shift, off, len,
		    direct ? DIRECT_MOST : CLIENT_BLOCK_MAX);
	if (rc == 0 && direct && len > 0) {
		if ((d = calloc(1, sizeof(*d))) == NULL)
			rc = -ENOMEM;
		else {
			d->io = io;
			d->len = len;
			d->left = 1;
			list_push_back(&c->directs, &d->node);
		}
	}
	if (rc != 0 || len == 0) {
		client_io_finish(c, io, rc);
		return;
	}
	i->mtime_ns = clock_wall(c->clock);
	i->ahead_gen++;
	while (client_stripe_next(&s, &p)) {
		const uint8_t *from = (const uint8_t *)data + p.pos;

		rc = d != NULL ? put_direct(i, &p, from, d) :
		    put_piece(i, &p, from);
		if (rc != 0)
			break;
		io->done = p.pos + p.len;
		if (d == NULL && off + io->done > i->own_end)
			i->own_end = off + io->done;
	}
	stat_add(&c->stat.writes, 1);
	stat_add(&c->stat.write_bytes, io->done);
	if (d != NULL) {
		direct_part(c, d, rc);
		return;
	}
	shed(c);
	age_arm(c);
	if (io->done == 0)
		client_io_finish(c, io, rc);
	else if (c->ext_bytes <= bytes_max(c) && list_empty(&c->write_waits))
		client_io_finish(c, io, 0);
	else {
		io->rc = 0;
		list_push_back(&c->write_waits, &io->node);
	}
}

void
client_write_close_all(struct client *c)
{
	struct list *const all[] = { &c->age, &c->pending, &c->sending };
	struct list *n;

	clock_timer_stop(c->clock, &c->age_timer);
	clock_timer_stop(c->clock, &c->relay_watch);
	for (unsigned k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		while (!list_empty(all[k])) {
			struct client_ext *e = list_entry(all[k]->next,
			    struct client_ext, node);
			struct client_inode *i = e->inode;
			struct client_chunk *ch = e->chunk;

			net_call_cancel(&e->call);
			ext_unhook(e);
			if (list_empty(&ch->exts))
				chunk_free(ch);
			client_ext_put(e);
			client_inode_put(i);
		}
	}
	while ((n = list_pop_front(&c->directs)) != NULL)
		free(list_entry(n, struct client_direct, node));
	client_keep_fini(&c->ext_keep);
	client_keep_fini(&c->chunk_keep);
}
