/* SPDX-License-Identifier: MIT */
/* client_script.h - services that a client finds, as a test scripts them, on virtual time.
 *
 * The calls below replace net/call.c and net/member.c.  Metadata is one directory of a few
 * files, storage one map of chunks that all replicas show; each answers after DELAY, or as
 * the script says. */
#ifndef TESTS_CLIENT_SCRIPT_H
#define TESTS_CLIENT_SCRIPT_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/crc32c.h"
#include "roles/client_impl.h"
#include "tests/sim/clock.h"

#define DELAY_NS	NS_PER_MS
#define CHUNK		65536u
#define META		9u		/* node */
#define META_FIRST	7u		/* when there are several: 7, 8, 9 */
#define SLOTS		512
#define FILES		8
#define CHUNKS		128

static struct sim_clock *world;
static struct clock *clk;
static struct rand rnd;
static struct conf conf;
static struct routing *routing;
static struct client *c;
static uint64_t routing_v;

/* ---- the script ---- */

static struct {
	uint16_t method;		/* 0: none */
	uint32_t node;			/* 0: any */
	unsigned times;
	int	 rc;			/* -ETIMEDOUT: silence */
	bool	 executed;		/* acts, but the answer is lost */
	bool	 slow;			/* silence, but pings are answered */
	enum lie { TRUE, WRONG_BYTES, MORE_BYTES, MORE_ITEMS, FEWER_ITEMS } lie; /* reads */
} bad;

/* Metadata servers other than META, when there are several: who leads, what the others
 * say (0: not the leader), and who says nothing. */
static struct {
	uint32_t leads;
	int	 rc[10];
	bool	 silent[10];
	unsigned asked[10];
} metas;

/* What the client has of a node; and storage nodes that are gone for relays, too. */
static enum { CUT_NONE, CUT_REFUSED, CUT_SILENT } cut[10];
static bool dead[10];

/* Reads of a node take so long; ~0: they are never answered, as by a stopped process. */
static uint64_t read_ns[10];
/* How long a server has memory of a call that was given up; 0: not at all. */
static uint64_t lend_ns;

static struct {
	unsigned calls[0x500];
	uint64_t last_seq, last_done, last_len;
	uint32_t last_node, writes_at_once, writes_now, refreshes, acted;
	uint32_t announced;
	uint32_t reads_of[10];		/* by node */
	uint32_t writes_of[10], relayed_by[10];
	uint64_t server_run;
	bool	 ended;			/* sessions of earlier runs have */
	bool	 left;
	unsigned cut_off;		/* reads whose memory was taken by force */
	unsigned writes_cut;		/* and writes */
} saw;

/* ---- the world ---- */

static struct msg_attr files[FILES];	/* by ino - 10; ino 0: free */
static char names[FILES][32];
static struct { uint64_t seq; struct msg_entry_rep rep; } once[64];
static struct {
	bool	 used;
	struct chunk_id id;
	uint8_t	 b[CHUNK];
	uint32_t len, epoch;
	uint64_t seq, version;
} chunks[CHUNKS];

static struct slot {
	struct net_call *call;
	struct clock_timer timer;
	struct net_call_opts opts;
	uint16_t method;
	int	 rc;
	bool	 mute;			/* nothing comes from there */
	bool	 lent;			/* given up; memory is still the server's */
	uint32_t crc;			/* of what is sent, while that lasts */
	uint32_t bulk;
	union {
		struct msg_entry_rep entry;
		struct msg_unlink_rep unlink;
		struct msg_session_rep session;
		struct msg_read_rep read;
		struct msg_write_rep write;
	} rep;
	struct msg_read_result results[STORAGE_BATCH_MAX];
	struct msg_open_row gone[FILES];
} slots[SLOTS];

static struct msg_attr *
file_of(uint64_t ino)
{
	if (ino < 10 || ino >= 10 + FILES || files[ino - 10].ino == 0)
		return NULL;
	return &files[ino - 10];
}

static struct msg_attr *
file_named(struct msg_str n)
{
	for (unsigned i = 0; i < FILES; i++)
		if (files[i].ino != 0 && strlen(names[i]) == n.n &&
		    memcmp(names[i], n.p, n.n) == 0)
			return &files[i];
	return NULL;
}

static struct msg_attr *
file_make(const char *name)
{
	unsigned i = 0;

	while (files[i].ino != 0)
		ck_assert_uint_lt(++i, FILES);
	snprintf(names[i], sizeof(names[i]), "%s", name);
	files[i] = (struct msg_attr){ .ino = 10 + i, .mode = S_IFREG | 0644,
		.nlink = 1, .table = 1, .table_version = 1, .chunk_shift = 16,
		.stripe = 2, .seed = i, .change = 1, .epoch = 1 };
	return &files[i];
}

static void
truncate_file(struct msg_attr *a, uint64_t size)
{
	if (size < a->size) {
		a->epoch++;
		for (unsigned i = 0; i < CHUNKS; i++) {
			uint64_t start = (uint64_t)chunks[i].id.index * CHUNK;

			if (!chunks[i].used || chunks[i].id.ino != a->ino)
				continue;
			if (start >= size)
				chunks[i].used = false;
			else if (start + chunks[i].len > size)
				chunks[i].len = (uint32_t)(size - start);
			chunks[i].epoch = a->epoch;
		}
	}
	a->size = size;
	a->change++;
}

static node_id
meta_via(uint16_t method, const void *req)
{
	node_id via = method == MSG_session ?
	    ((const struct msg_session *)req)->via :
	    ((const struct msg_ctx *)req)->via;

	if (via != 0)
		saw.relayed_by[via]++;
	return via;
}

static int
serve_meta(struct slot *s, uint16_t method, const void *req)
{
	const struct msg_ctx *ctx = req;
	struct msg_attr *a = NULL;
	int rc = 0;

	if (method == MSG_session) {
		const struct msg_session *q = req;

		saw.announced += q->opens.n;
		saw.left |= q->leaving;
		s->rep.session = (struct msg_session_rep){
			.epoch = saw.server_run, .lease_ms = 3000,
			.ended = saw.ended && q->epoch != 0 &&
			    q->epoch != saw.server_run,
			.gone.v = s->gone };
		for (uint32_t k = 0; k < q->opens.n; k++)
			if (file_of(q->opens.v[k].ino) == NULL)
				s->gone[s->rep.session.gone.n++] = q->opens.v[k];
		return 0;
	}
	saw.last_done = ctx->done;
	if (ctx->seq != 0) {
		saw.last_seq = ctx->seq;
		ck_assert_uint_lt(ctx->done, ctx->seq);
		if (once[ctx->seq % 64].seq == ctx->seq) {
			s->rep.entry = once[ctx->seq % 64].rep;
			return 0;
		}
		saw.acted++;
	}
	switch (method) {
	case MSG_lookup:
		a = file_named(((const struct msg_lookup *)req)->name);
		break;
	case MSG_getattr:
		a = file_of(((const struct msg_ino *)req)->ino);
		break;
	case MSG_create: {
		const struct msg_create *q = req;

		a = file_named(q->name);
		if (a != NULL && (q->flags & O_EXCL) != 0)
			return -EEXIST;
		s->rep.entry.created = a == NULL;
		if (a == NULL) {
			char name[32] = "";

			memcpy(name, q->name.p, q->name.n);
			a = file_make(name);
		} else if ((q->flags & O_TRUNC) != 0)
			truncate_file(a, 0);
		break;
	}
	case MSG_open: {
		const struct msg_open *q = req;

		ck_assert_uint_ne(q->handle, 0);
		if ((a = file_of(q->ino)) != NULL && (q->flags & O_TRUNC) != 0)
			truncate_file(a, 0);
		break;
	}
	case MSG_close: case MSG_sync: {
		const struct msg_sync *q = req;

		ck_assert_int_eq(q->wrote != 0, ctx->seq != 0);
		if ((a = file_of(q->ino)) != NULL && q->wrote) {
			saw.last_len = q->length;
			if (q->epoch == a->epoch && q->length > a->size)
				a->size = q->length;
			a->mtime = q->mtime;
			a->change++;
		}
		break;
	}
	case MSG_setattr: {
		const struct msg_setattr *q = req;

		if ((a = file_of(q->ino)) == NULL)
			break;
		if ((q->valid & META_SET_SIZE) != 0)
			truncate_file(a, q->size);
		if ((q->valid & META_SET_MTIME) != 0)
			a->mtime = q->mtime;
		a->change++;
		break;
	}
	case MSG_unlink:
		a = file_named(((const struct msg_name *)req)->name);
		if (a == NULL)
			return -ENOENT;
		names[a->ino - 10][0] = '\0';
		s->rep.unlink = (struct msg_unlink_rep){ a->ino, 0 };
		return 0;
	default:
		ck_abort_msg("method %x", method);
	}
	if (a == NULL)
		return -ENOENT;
	s->rep.entry.attr = *a;
	s->rep.entry.ttl_ms = 100;
	if (ctx->seq != 0) {
		once[ctx->seq % 64].seq = ctx->seq;
		once[ctx->seq % 64].rep = s->rep.entry;
	}
	return rc;
}

static int
chunk_find(struct chunk_id id, bool make)
{
	int spare = -1;

	for (int i = 0; i < CHUNKS; i++) {
		if (chunks[i].used && chunk_id_cmp(chunks[i].id, id) == 0)
			return i;
		if (!chunks[i].used && spare < 0)
			spare = i;
	}
	if (!make)
		return -1;
	ck_assert_int_ge(spare, 0);
	memset(&chunks[spare], 0, sizeof(chunks[spare]));
	chunks[spare].used = true;
	chunks[spare].id = id;
	return spare;
}

static int
serve_write(struct slot *s, const struct msg_write *q)
{
	const struct routing_chain *ch = routing_chain(routing, q->chain);
	const uint8_t *data = s->opts.send[0].iov_base;
	int i;

	ck_assert_uint_eq(s->opts.send_n, 1);
	ck_assert_uint_eq(s->opts.send[0].iov_len, q->len);
	ck_assert_uint_eq(crc32c(0, data, q->len), q->crc);
	ck_assert_uint_le(q->offset + q->len, CHUNK);
	ck_assert_uint_ne(q->seq, 0);
	if (ch->version != q->chain_version || ch->targets[0] != q->target)
		return ERR_STALE_CHAIN;
	if (file_of(q->chunk.ino) == NULL ||
	    q->epoch < file_of(q->chunk.ino)->epoch)
		return ERR_STALE_EPOCH;
	if (q->via != 0) {
		unsigned k = 1;

		while (k < ch->target_n && ch->targets[k] != q->via)
			k++;
		ck_assert_uint_lt(k, routing_active_n(ch));
		saw.relayed_by[q->via % 10]++;
		if (dead[q->target % 10])
			return ERR_CHAIN_RECOVERING;
	}
	i = chunk_find(q->chunk, true);
	s->rep.write = (struct msg_write_rep){ chunks[i].version,
		chunks[i].len };
	if (chunks[i].seq == q->seq)
		return 0;
	ck_assert_uint_gt(q->seq, chunks[i].seq);
	saw.acted++;
	chunks[i].seq = q->seq;
	chunks[i].version++;
	if (q->offset > chunks[i].len)
		memset(chunks[i].b + chunks[i].len, 0,
		    q->offset - chunks[i].len);
	memcpy(chunks[i].b + q->offset, data, q->len);
	if (q->offset + q->len > chunks[i].len)
		chunks[i].len = q->offset + q->len;
	return 0;
}

static int
serve_read(struct slot *s, const struct msg_read *q, enum lie lie)
{
	const struct routing_chain *ch = routing_chain(routing, q->chain);

	if (ch->version != q->chain_version)
		return ERR_STALE_CHAIN;
	ck_assert_uint_eq(q->items.n, s->opts.recv_n);
	s->rep.read.items.v = s->results;
	s->rep.read.items.n = q->items.n + (lie == MORE_ITEMS) - (lie == FEWER_ITEMS);
	for (uint32_t k = 0; k < q->items.n; k++) {
		const struct msg_read_item *it = &q->items.v[k];
		struct msg_read_result *r = &s->results[k];
		uint8_t *dst = s->opts.recv[k].iov_base;
		int i = chunk_find(it->chunk, false);

		ck_assert_uint_eq(it->len, s->opts.recv[k].iov_len);
		memset(dst, 0xee, it->len);
		*r = (struct msg_read_result){ .rc = i < 0 ? -ENOENT : 0 };
		if (i < 0 || it->offset >= chunks[i].len)
			continue;
		r->len = it->len < chunks[i].len - it->offset ? it->len :
		    chunks[i].len - it->offset;
		memcpy(dst, chunks[i].b + it->offset, r->len);
		r->crc = crc32c(0, dst, r->len);
		r->len += lie == MORE_BYTES;
		if (lie == WRONG_BYTES)
			dst[0] ^= 1;
	}
	return 0;
}

static uint32_t
crc_sent(const struct slot *s)
{
	return crc32c(0, s->opts.send[0].iov_base, s->opts.send[0].iov_len);
}

static void
end_call(struct clock_timer *t)
{
	struct slot *s = container_of(t, struct slot, timer);
	struct net_call *call = s->call;

	/* The last that a server writes there. */
	for (unsigned k = 0; s->lent && k < s->opts.recv_n; k++)
		memset(s->opts.recv[k].iov_base, 0xdd, s->opts.recv[k].iov_len);
	/* ... and reads. */
	if (s->method == MSG_write)
		ck_assert_uint_eq(crc_sent(s), s->crc);
	s->call = NULL;
	call->id = 0;
	call->rep = &s->rep;
	if (s->method == MSG_write)
		saw.writes_now--;
	call->fn(call, s->rc);
}

/* No device that must know memory. */
int
net_mem_pool(struct net_hub *hub, struct mem_pool *pool)
{
	(void)hub;
	(void)pool;
	return 0;
}

int
net_call_start(struct net_call *call, struct net_hub *hub,
    const struct net_addr *to, uint16_t method, const void *req,
    const struct net_call_opts *opts, net_call_fn *fn)
{
	struct slot *s = slots;
	uint64_t at = clock_now(clk) + DELAY_NS;
	enum lie lie = TRUE;
	bool hit;
	int rc = 0;

	(void)hub;
	ck_assert(!net_call_active(call));
	while (s->call != NULL)
		ck_assert(++s < slots + SLOTS);
	memset(s, 0, sizeof(*s));
	s->call = call;
	s->opts = *opts;
	s->method = method;
	call->fn = fn;
	call->id = 1;
	saw.calls[method]++;
	/* From here on until the call ends it is not the caller's. */
	for (unsigned k = 0; k < opts->recv_n; k++)
		memset(opts->recv[k].iov_base, 0xdd, opts->recv[k].iov_len);
	if (method == MSG_read)
		saw.reads_of[to->id]++;
	saw.last_node = to->id;
	if (method == MSG_write) {
		saw.writes_of[to->id]++;
		s->crc = crc_sent(s);
	}
	if (method == MSG_write && ++saw.writes_now > saw.writes_at_once)
		saw.writes_at_once = saw.writes_now;
	hit = bad.times > 0 && bad.method == method &&
	    (bad.node == 0 || bad.node == to->id);
	if (hit) {
		bad.times--;
		rc = bad.rc;
		lie = bad.lie;
	}
	if (cut[to->id] != CUT_NONE) {
		rc = cut[to->id] == CUT_SILENT ? -ETIMEDOUT : -ECONNREFUSED;
	} else if (!hit || bad.executed || lie != TRUE) {
		int got;

		if (method == MSG_who)
			got = 0;
		else if (to->id >= META_FIRST && meta_via(method, req) == to->id &&
		    metas.leads != 0 && to->id != metas.leads && !dead[metas.leads])
			got = serve_meta(s, method, req);
		else if (to->id >= META_FIRST && to->id != metas.leads)
			got = metas.rc[to->id] != 0 ? metas.rc[to->id] :
			    ERR_NOT_LEADER;
		else if (to->id >= META_FIRST)
			got = serve_meta(s, method, req);
		else if (method == MSG_write)
			got = serve_write(s, req);
		else if (method == MSG_committed)
			got = 0;
		else
			got = serve_read(s, req, lie);
		if (rc == 0)
			rc = got;
	}
	if (to->id >= META_FIRST) {
		metas.asked[to->id]++;
		if (metas.silent[to->id])
			rc = -ETIMEDOUT;
	}
	if (method == MSG_read && read_ns[to->id] != 0)
		at = clock_now(clk) + read_ns[to->id];
	s->mute = rc == -ETIMEDOUT && !(hit && bad.slow);
	if (rc == 0 && at > opts->deadline_ns)
		rc = -ETIMEDOUT;
	if (rc == -ETIMEDOUT)
		at = opts->deadline_ns;
	if (rc != 0)
		memset(&s->rep, 0, sizeof(s->rep));
	s->rc = rc;
	clock_timer_start(clk, &s->timer, at, end_call);
	return 0;
}

void
net_call_cancel(struct net_call *call)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].call == call) {
			clock_timer_stop(clk, &slots[i].timer);
			slots[i].call = NULL;
			if (slots[i].method == MSG_write)
				saw.writes_now--;
			saw.cut_off += slots[i].method == MSG_read;
			saw.writes_cut += slots[i].method == MSG_write;
		}
	call->id = 0;
}

bool
net_call_abandon(struct net_call *call)
{
	struct slot *s = slots;

	if (lend_ns == 0 || !net_call_active(call)) {
		net_call_cancel(call);
		return true;
	}
	while (s->call != call)
		s++;
	if (s->lent)
		return false;
	s->lent = true;
	s->rc = -ECANCELED;
	memset(&s->rep, 0, sizeof(s->rep));
	clock_timer_start(clk, &s->timer, clock_now(clk) + lend_ns, end_call);
	return false;
}

bool
net_call_leave(struct net_call *call)
{
	return net_call_abandon(call);
}

bool
net_call_active(const struct net_call *call)
{
	return call->id != 0;
}

/* As if this client's own window kept all answers from coming. */
static bool replies_wait;

bool
net_call_waits(const struct net_call *call)
{
	return net_call_active(call) && replies_wait;
}

uint64_t
net_call_heard(const struct net_call *call)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].call == call)
			return slots[i].mute ? 0 : clock_now(clk);
	return 0;
}

void
net_call_ping(struct net_call *call)
{
	ck_assert(net_call_active(call));
}

/* ---- membership: routing that the test sets ---- */

struct member {
	void (*changed)(void *ctx);
	void *ctx;
	struct clock_defer defer, leave;
	void (*left)(void *ctx);
	void *left_ctx;
};

static void
tell(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, defer);

	m->changed(m->ctx);
}

int
member_open(struct member **out, const struct member_conf *mc)
{
	*out = calloc(1, sizeof(**out));
	ck_assert_ptr_nonnull(*out);
	(*out)->changed = mc->changed;
	(*out)->ctx = mc->ctx;
	clock_defer(clk, &(*out)->defer, tell);
	return 0;
}

void
member_close(struct member *m)
{
	if (m == NULL)
		return;
	clock_undefer(clk, &m->defer);
	clock_undefer(clk, &m->leave);
	free(m);
}

static void
gone(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, leave);

	m->left(m->left_ctx);
}

void
member_leave(struct member *m, void (*fn)(void *ctx), void *ctx)
{
	m->left = fn;
	m->left_ctx = ctx;
	clock_defer(clk, &m->leave, gone);
}

const struct routing *
member_routing(const struct member *m)
{
	(void)m;
	return routing;
}

void
member_refresh(struct member *m)
{
	(void)m;
	saw.refreshes++;
}

/* Chain @id in @version is the targets @t[0..n), each on the node of its number mod 10; the
 * first @serving of them serve, the others are gone. */
static void
set_chain_states(uint32_t id, uint32_t version, const uint32_t *t, unsigned n,
    unsigned serving)
{
	uint32_t states[ROUTING_REPLICAS_MAX];
	struct msg_rt_chain ch = { .id = id, .changed = ++routing_v,
		.version = version, .state = serving > 0 ? CHAIN_SERVING :
		CHAIN_RECOVERING };
	struct msg_routing_rep d = { .version = routing_v };

	for (unsigned i = 0; i < n; i++)
		states[i] = i < serving ? TARGET_SERVING : i == 0 ?
		    TARGET_LASTSRV : TARGET_OFFLINE;
	ch.states.v = states;
	ch.states.n = n;
	ch.preferred.v = (uint32_t *)(uintptr_t)t;
	ch.preferred.n = n;

	d.cluster.b[0] = 1;
	ch.targets.v = (uint32_t *)(uintptr_t)t;
	ch.targets.n = n;
	d.chains.v = &ch;
	d.chains.n = 1;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
}

static void
set_chain(uint32_t id, uint32_t version, uint8_t state, const uint32_t *t,
    unsigned n)
{
	set_chain_states(id, version, t, n, state == CHAIN_SERVING ? n : 0);
}

/* More metadata servers. */
static inline void
add_metas(void)
{
	static const char *const texts[] = { "sim:7:0", "sim:8:0" };
	struct msg_str addrs[2];
	struct msg_rt_node nodes[2];
	struct msg_routing_rep d = { .version = ++routing_v };

	d.cluster.b[0] = 1;
	for (unsigned i = 0; i < 2; i++) {
		addrs[i] = msg_str(texts[i]);
		nodes[i] = (struct msg_rt_node){ .id = META_FIRST + i,
			.changed = routing_v, .name = msg_str("m"),
			.roles = NODE_METADATA, .state = NODE_UP };
		nodes[i].addrs.v = &addrs[i];
		nodes[i].addrs.n = 1;
	}
	d.nodes.v = nodes;
	d.nodes.n = 2;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
}

static void
set_routing(void)
{
	static const uint32_t t1[] = { 11, 12, 13 }, t2[] = { 22, 23, 21 };
	static const uint32_t ids[] = { 1, 2 };
	struct msg_rt_node nodes[4];
	struct msg_rt_target targets[6];
	struct msg_rt_table table = { .id = 1, .version = 1 };
	struct msg_routing_rep d = { 0 };
	static const char *const texts[] = { "sim:1:0", "sim:2:0", "sim:3:0",
		"sim:9:0" };
	struct msg_str addrs[4];

	d.cluster.b[0] = 1;
	d.version = ++routing_v;
	for (unsigned i = 0; i < 4; i++) {
		addrs[i] = msg_str(texts[i]);
		nodes[i] = (struct msg_rt_node){ .id = i == 3 ? META : i + 1,
			.changed = routing_v, .name = msg_str("n"),
			.roles = i == 3 ? NODE_METADATA : NODE_STORAGE,
			.state = NODE_UP };
		nodes[i].addrs.v = &addrs[i];
		nodes[i].addrs.n = 1;
	}
	for (unsigned i = 0; i < 6; i++)
		targets[i] = (struct msg_rt_target){ .id = (i / 3 + 1) * 10 +
			i % 3 + 1, .changed = routing_v, .node = i % 3 + 1,
			.chain = i / 3 + 1 };
	table.changed = routing_v;
	table.chains.v = (uint32_t *)(uintptr_t)ids;
	table.chains.n = 2;
	d.nodes.v = nodes;
	d.nodes.n = 4;
	d.targets.v = targets;
	d.targets.n = 6;
	d.tables.v = &table;
	d.tables.n = 1;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
	set_chain(1, 1, CHAIN_SERVING, t1, 3);
	set_chain(2, 1, CHAIN_SERVING, t2, 3);
}

static inline void
routing_told(void)
{
	clock_defer(clk, &c->member->defer, tell);
}

#endif
