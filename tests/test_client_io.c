/* SPDX-License-Identifier: MIT */
/* test_client_io.c - the client against scripted services, on virtual time.
 *
 * The calls below replace net/call.c and net/member.c.  Metadata is one directory of a few
 * files, storage one map of chunks that all replicas show; each answers after DELAY, or as
 * the script says. */
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
	bool	 damage;		/* a read has wrong bytes */
} bad;

/* Metadata servers other than META, when there are several: who leads, what the others
 * say (0: not the leader), and who says nothing. */
static struct {
	uint32_t leads;
	int	 rc[10];
	bool	 silent[10];
	unsigned asked[10];
} metas;

/* Reads of a node take so long; ~0: they are never answered, as by a stopped process. */
static uint64_t read_ns[10];

static struct {
	unsigned calls[0x400];
	uint64_t last_seq, last_done, last_len;
	uint32_t last_node, writes_at_once, writes_now, refreshes, acted;
	uint32_t announced;
	uint32_t reads_of[10];		/* by node */
	uint64_t server_run;
	bool	 ended;			/* sessions of earlier runs have */
	bool	 left;
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
serve_read(struct slot *s, const struct msg_read *q, bool damage)
{
	const struct routing_chain *ch = routing_chain(routing, q->chain);

	if (ch->version != q->chain_version)
		return ERR_STALE_CHAIN;
	ck_assert_uint_eq(q->items.n, s->opts.recv_n);
	s->rep.read.items.v = s->results;
	s->rep.read.items.n = q->items.n;
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
		if (damage)
			dst[0] ^= 1;
	}
	return 0;
}

static void
end_call(struct clock_timer *t)
{
	struct slot *s = container_of(t, struct slot, timer);
	struct net_call *call = s->call;

	s->call = NULL;
	call->id = 0;
	call->rep = &s->rep;
	if (s->method == MSG_write)
		saw.writes_now--;
	call->fn(call, s->rc);
}

int
net_call_start(struct net_call *call, struct net_hub *hub,
    const struct net_addr *to, uint16_t method, const void *req,
    const struct net_call_opts *opts, net_call_fn *fn)
{
	struct slot *s = slots;
	uint64_t at = clock_now(clk) + DELAY_NS;
	bool hit, damage = false;
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
	if (method == MSG_write && ++saw.writes_now > saw.writes_at_once)
		saw.writes_at_once = saw.writes_now;
	hit = bad.times > 0 && bad.method == method &&
	    (bad.node == 0 || bad.node == to->id);
	if (hit) {
		bad.times--;
		rc = bad.rc;
		damage = bad.damage;
	}
	if (!hit || bad.executed || damage) {
		int got;

		if (to->id >= META_FIRST && to->id != metas.leads)
			got = metas.rc[to->id] != 0 ? metas.rc[to->id] :
			    ERR_NOT_LEADER;
		else if (to->id >= META_FIRST)
			got = serve_meta(s, method, req);
		else if (method == MSG_write)
			got = serve_write(s, req);
		else
			got = serve_read(s, req, damage);
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
		}
	call->id = 0;
}

bool
net_call_active(const struct net_call *call)
{
	return call->id != 0;
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
static void
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

static void
routing_told(void)
{
	clock_defer(clk, &c->member->defer, tell);
}

/* ---- requests that can be waited for ---- */

static struct req {
	struct client_op op;
	struct client_io io;
	bool	 done;
	int	 rc;
	struct msg_entry_rep entry;
	uint64_t ttl_ns;
} reqs[16];
static bool ready, stopped;

static void
on_ready(void *ctx, int rc)
{
	(void)ctx;
	ck_assert_int_eq(rc, 0);
	ready = true;
}

static void
on_stop(void *ctx, int rc)
{
	(void)ctx;
	ck_assert_int_eq(rc, 0);
	stopped = true;
}

static void
op_done(struct client_op *op, int rc)
{
	struct req *r = container_of(op, struct req, op);

	ck_assert(!r->done);
	r->done = true;
	r->rc = rc;
	r->ttl_ns = op->ttl_ns;
	if (rc == 0 && op->entry != NULL)
		r->entry = *op->entry;
}

static void
io_done(struct client_io *io, int rc)
{
	struct req *r = container_of(io, struct req, io);

	ck_assert(!r->done);
	r->done = true;
	r->rc = rc;
}

static bool
is_true(void *flag)
{
	return *(bool *)flag;
}

static int
wait_for(struct req *r)
{
	ck_assert(!r->done);		/* never before the call returned */
	ck_assert(sim_clock_run_until(world, is_true, &r->done,
	    1000 * NS_PER_S));
	r->done = false;
	return r->rc;
}

static struct client_file *
make(const char *name)
{
	struct client_file *f = NULL;

	client_file_create(c, &reqs[0].op, op_done, NULL, 1, name, 0644,
	    O_RDWR | O_CREAT, &f);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	ck_assert_ptr_nonnull(f);
	return f;
}

static struct client_file *
open_ino(ino_id ino, uint32_t flags)
{
	struct client_file *f = NULL;

	client_file_open(c, &reqs[0].op, op_done, NULL, ino, flags, &f);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	return f;
}

static uint8_t pattern[1 << 20], zeros[1 << 20];

static int
put(struct client_file *f, uint64_t off, const void *p, uint64_t len,
    bool direct)
{
	int rc;

	client_write(f, &reqs[1].io, io_done, off, p, len, direct);
	rc = wait_for(&reqs[1]);
	if (rc == 0)
		ck_assert_uint_eq(reqs[1].io.done, len);
	return rc;
}

/* Read and compare; @len is what must come, of @ask. */
static void
expect(struct client_file *f, uint64_t off, uint64_t ask, const void *want,
    uint64_t len)
{
	const uint8_t *p = want;

	client_read(f, &reqs[2].io, io_done, off, ask);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_eq(reqs[2].io.done, len);
	for (unsigned i = 0; i < reqs[2].io.iov_n; i++) {
		size_t n = reqs[2].io.iov[i].iov_len;

		ck_assert_mem_eq(reqs[2].io.iov[i].iov_base, p, n);
		p += n;
	}
	ck_assert_uint_eq((uint64_t)(p - (const uint8_t *)want), len);
	client_read_done(c, &reqs[2].io);
}

static int
sync_file(struct client_file *f)
{
	client_fsync(f, &reqs[3].op, op_done);
	return wait_for(&reqs[3]);
}

static uint64_t
size_of(ino_id ino)
{
	client_getattr(c, &reqs[4].op, op_done, NULL, ino);
	ck_assert_int_eq(wait_for(&reqs[4]), 0);
	return reqs[4].entry.attr.size;
}

static void
env_random(void *ctx, void *out, size_t n)
{
	(void)ctx;
	rand_bytes(&rnd, out, n);
}

static void
start(void)
{
	struct role_env env = { .clock = clk, .rand = &rnd, .conf = &conf,
		.random = env_random };
	struct net_addr manager = { .kind = NET_ADDR_SIM, .id = 8 };

	log_init(&env.log, "client");
	env.log.level = LOG_ERROR;
	ck_assert_int_eq(client_open(&c, &env, &manager, 1, "/t", on_ready,
	    NULL), 0);
	ck_assert(sim_clock_run_until(world, is_true, &ready, NS_PER_S));
}

static void
setup(void)
{
	memset(&bad, 0, sizeof(bad));
	memset(&saw, 0, sizeof(saw));
	memset(files, 0, sizeof(files));
	memset(names, 0, sizeof(names));
	memset(once, 0, sizeof(once));
	memset(chunks, 0, sizeof(chunks));
	memset(slots, 0, sizeof(slots));
	memset(read_ns, 0, sizeof(read_ns));
	memset(&metas, 0, sizeof(metas));
	metas.leads = META;
	memset(reqs, 0, sizeof(reqs));
	saw.server_run = 77;
	routing_v = 0;
	ready = stopped = false;
	conf = (struct conf){ .client_memory = 128 << 20,
		.client_buffer_keep = 16 << 20, .client_write_back = 5000,
		.client_call = 5000 };
	rand_seed(&rnd, 1);
	rand_bytes(&rnd, pattern, sizeof(pattern));
	world = sim_clock_open();
	clk = sim_clock_node(world, 777 * NS_PER_S, 0);
	ck_assert_int_eq(routing_open(&routing), 0);
	set_routing();
	start();
}

static void
teardown(void)
{
	client_close(c);
	c = NULL;
	for (unsigned i = 0; i < SLOTS; i++)
		ck_assert_ptr_null(slots[i].call);
	ck_assert_uint_eq(sim_clock_node_pending(clk), 0);
	routing_close(routing);
	sim_clock_close(world);
}

/* ---- metadata calls ---- */

static const struct {
	const char *what;
	int rc;
	bool executed;
	unsigned times;
	int want;
	unsigned acted;
} retries[] = {
	{ "busy", ERR_BUSY, false, 3, 0, 1 },
	{ "connection lost before", -ECONNRESET, false, 2, 0, 1 },
	{ "connection lost after", -ECONNRESET, true, 2, 0, 1 },
	{ "silence after", -ETIMEDOUT, true, 1, 0, 1 },
	{ "not the leader", ERR_NOT_LEADER, false, 2, 0, 1 },
	{ "stopping", ERR_STOPPING, false, 2, 0, 1 },
	{ "session unknown", ERR_SESSION, false, 1, 0, 1 },
	{ "refused", -EACCES, false, 1, -EACCES, 0 },
};

START_TEST(changes_act_once)
{
	struct client_file *f = NULL;

	bad.method = MSG_create;
	bad.times = retries[_i].times;
	bad.rc = retries[_i].rc;
	bad.executed = retries[_i].executed;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	ck_assert_msg(wait_for(&reqs[0]) == retries[_i].want, "%s: %d",
	    retries[_i].what, reqs[0].rc);
	ck_assert_msg(saw.acted == retries[_i].acted, "%s: acted %u times",
	    retries[_i].what, saw.acted);
	ck_assert_uint_eq(saw.calls[MSG_create], retries[_i].want == 0 ?
	    retries[_i].times + 1 : 1);
	ck_assert_uint_eq(saw.last_seq, retries[_i].acted);
}
END_TEST

START_TEST(done_waits_for_the_oldest)
{
	struct client_file *f[3] = { NULL };

	bad.method = MSG_create;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0, O_RDWR,
	    &f[0]);
	client_file_create(c, &reqs[1].op, op_done, NULL, 1, "b", 0, O_RDWR,
	    &f[1]);
	ck_assert_int_eq(wait_for(&reqs[1]), 0);
	client_file_create(c, &reqs[2].op, op_done, NULL, 1, "c", 0, O_RDWR,
	    &f[2]);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_eq(saw.last_seq, 3);
	ck_assert_uint_eq(saw.last_done, 0);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	(void)size_of(client_file_ino(f[0]));
	ck_assert_uint_eq(saw.last_done, 3);
}
END_TEST

/* ---- several metadata servers ---- */

static const struct {
	const char *what;
	int	 rc;			/* of the one that led; 0: silence */
	bool	 executed;		/* it had acted before that */
	uint32_t leads;		/* now */
	int	 other_rc;		/* of the third; 0: not the leader */
	bool	 other_silent;
	uint64_t most_ms;
} elections[] = {
	{ "gave up", ERR_NOT_LEADER, false, 7, 0, false, 4 },
	{ "gave up, the last one asked leads", ERR_NOT_LEADER, false, 8, 0,
	  false, 5 },
	{ "died", -ECONNRESET, false, 7, 0, false, 4 },
	{ "died after it had acted", -ECONNRESET, true, 8, 0, false, 5 },
	{ "stops", ERR_STOPPING, false, 8, 0, false, 5 },
	{ "lost its lease", ERR_NO_LEASE, false, 7, 0, false, 5 },
	{ "is silent", 0, false, 7, 0, false, 1300 },
	{ "is silent after it had acted", 0, true, 8, 0, false, 1300 },
	{ "died, and another with it", -ECONNREFUSED, false, 8, -ECONNREFUSED,
	  false, 5 },
	{ "died, and another is silent", -ECONNREFUSED, false, 8, 0, true, 1300 },
};

START_TEST(another_metadata_server_leads)
{
	struct client_file *f = NULL, *g = make("before");
	uint32_t other = 7 + 8 - elections[_i].leads;
	unsigned acted = saw.acted, asked;
	uint64_t begun;

	add_metas();
	routing_told();
	ck_assert_uint_eq(size_of(client_file_ino(g)), 0);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
	metas.leads = elections[_i].leads;
	metas.rc[META] = elections[_i].rc;
	metas.silent[META] = elections[_i].rc == 0;
	metas.rc[other] = elections[_i].other_rc;
	metas.silent[other] = elections[_i].other_silent;
	if (elections[_i].executed) {	/* the answer of its last act is lost */
		metas.leads = META;
		metas.silent[META] = false;
		bad.method = MSG_create;
		bad.times = 1;
		bad.rc = elections[_i].rc != 0 ? elections[_i].rc : -ETIMEDOUT;
		bad.executed = true;
	}
	begun = clock_now(clk);
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	metas.leads = elections[_i].leads;
	metas.silent[META] = elections[_i].rc == 0;
	ck_assert_msg(wait_for(&reqs[0]) == 0, "%s: %d", elections[_i].what,
	    reqs[0].rc);
	begun = (clock_now(clk) - begun) / NS_PER_MS;
	ck_assert_msg(begun <= elections[_i].most_ms, "%s: %llu ms",
	    elections[_i].what, (unsigned long long)begun);
	ck_assert_msg(saw.acted == acted + 1, "%s", elections[_i].what);
	/* it is remembered */
	asked = metas.asked[META] + metas.asked[other];
	for (unsigned i = 0; i < 10; i++)
		(void)size_of(client_file_ino(f));
	ck_assert_msg(metas.asked[META] + metas.asked[other] <= asked + 1, "%s",
	    elections[_i].what);
}
END_TEST

/* Nobody leads for a while: there are pauses, and all goes on when somebody does. */
START_TEST(an_election_takes_a_while)
{
	struct client_file *f = NULL;
	unsigned asked;

	add_metas();
	routing_told();
	metas.leads = 0;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	sim_clock_run(world, 2 * NS_PER_S);
	asked = metas.asked[7] + metas.asked[8] + metas.asked[9];
	ck_assert_uint_le(asked, 150);
	metas.leads = 8;
	sim_clock_run(world, 110 * NS_PER_MS);
	ck_assert(reqs[0].done && reqs[0].rc == 0);
	ck_assert_uint_eq(saw.acted, 1);
}
END_TEST

/* Who led is cut off, and the others need time to elect: they are asked again and again, and
 * the silent one is not waited for in between. */
START_TEST(an_election_without_the_silent_one)
{
	struct client_file *f = NULL;

	add_metas();
	routing_told();
	metas.leads = 0;
	metas.silent[META] = true;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	for (unsigned ms = 1300; ms < 3000; ms += 100) {
		unsigned asked = metas.asked[7] + metas.asked[8];

		sim_clock_run(world, ms == 1300 ? 1300 * NS_PER_MS : 100 * NS_PER_MS);
		ck_assert_uint_gt(metas.asked[7] + metas.asked[8], asked);
	}
	metas.leads = 8;
	sim_clock_run(world, 110 * NS_PER_MS);
	ck_assert(reqs[0].done && reqs[0].rc == 0);
}
END_TEST

/* A request that waits for others at a server that is well is not sent elsewhere. */
START_TEST(slow_is_not_silent)
{
	struct client_file *f = make("a");
	ino_id ino = client_file_ino(f);

	add_metas();
	routing_told();
	bad.method = MSG_lookup;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	client_lookup(c, &reqs[5].op, op_done, NULL, 1, "a");
	for (unsigned i = 0; i < 45; i++) {
		sim_clock_run(world, 100 * NS_PER_MS);
		(void)size_of(ino);
	}
	ck_assert(!reqs[5].done);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
}
END_TEST

START_TEST(gives_up_when_told_to)
{
	conf.client_retry = 2000;
	bad.method = MSG_lookup;
	bad.times = ~0u;
	bad.rc = ERR_BUSY;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	ck_assert_int_eq(wait_for(&reqs[0]), ERR_BUSY);
	ck_assert_uint_lt(saw.calls[MSG_lookup], 40);	/* pauses grow */
}
END_TEST

START_TEST(names_are_checked)
{
	char name[300];

	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, name);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENAMETOOLONG);
	name[255] = '\0';
	client_rename(c, &reqs[0].op, op_done, NULL, 1, name, 1, "", 0);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENOENT);
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, name);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENOENT);
	ck_assert_uint_eq(saw.calls[MSG_lookup], 1);
}
END_TEST

START_TEST(ttl_is_what_is_left)
{
	struct client_file *f = make("a");

	(void)size_of(client_file_ino(f));
	ck_assert_uint_eq(reqs[4].ttl_ns, 100 * NS_PER_MS - DELAY_NS);
}
END_TEST

START_TEST(opens_are_told_again)
{
	(void)make("a");
	(void)make("b");
	ck_assert_uint_eq(saw.announced, 0);
	saw.server_run = 78;
	sim_clock_run(world, 3 * NS_PER_S);
	ck_assert_uint_eq(saw.announced, 2);
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert_uint_eq(saw.announced, 2);
	/* A server that has forgotten us is told at once. */
	saw.server_run = 79;
	bad.method = MSG_lookup;
	bad.times = 1;
	bad.rc = ERR_SESSION;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	ck_assert_uint_eq(saw.announced, 4);
}
END_TEST

/* ---- data ---- */

START_TEST(written_data_is_read)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 300000, false), 0);
	expect(f, 0, 300000, pattern, 300000);		/* some of it in flight */
	expect(f, 299990, 100, pattern + 299990, 10);
	expect(f, 300000, 100, "", 0);
	ck_assert_uint_eq(size_of(client_file_ino(f)), 300000);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.last_len, 300000);
	ck_assert_uint_eq(file_of(client_file_ino(f))->size, 300000);
	expect(f, 12345, 200000, pattern + 12345, 200000);
	/* Five chunks, one call each: nothing was written twice. */
	ck_assert_uint_eq(saw.calls[MSG_write], 5);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.calls[MSG_sync], 1);	/* nothing new to settle */
}
END_TEST

START_TEST(small_appends_become_one_write)
{
	struct client_file *f = make("a");

	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(put(f, i * 100, pattern + i * 100, 100,
		    false), 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 0);
	expect(f, 50, 9000, pattern + 50, 9000);
	ck_assert_uint_eq(saw.calls[MSG_read], 0);	/* all of it was ours */
	sim_clock_run(world, 6 * NS_PER_S);		/* client.write_back */
	ck_assert_uint_eq(saw.calls[MSG_write], 1);
	expect(f, 50, 9000, pattern + 50, 9000);
	ck_assert_uint_eq(saw.calls[MSG_read], 1);
}
END_TEST

START_TEST(holes_are_zeros)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 200000, pattern, 10, false), 0);
	expect(f, 0, 200000, zeros, 200000);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 100000, 100000, zeros, 100000);
	client_read(f, &reqs[2].io, io_done, 199999, 100);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_eq(reqs[2].io.done, 11);
	ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, zeros, 1);
	ck_assert_mem_eq((uint8_t *)reqs[2].io.iov[0].iov_base + 1, pattern,
	    10);
	client_read_done(c, &reqs[2].io);
}
END_TEST

START_TEST(overlapping_writes_keep_their_order)
{
	struct client_file *f = make("a");
	uint8_t want[CHUNK];

	memset(want, 0, sizeof(want));
	rand_seed(&rnd, 5);
	for (unsigned i = 0; i < 400; i++) {
		uint32_t off = (uint32_t)rand_below(&rnd, CHUNK - 3000);
		uint32_t len = 1 + (uint32_t)rand_below(&rnd, 3000);
		uint32_t from = (uint32_t)rand_below(&rnd, 1000);

		if (i == 0)
			off = CHUNK - 3000, len = 3000;
		memcpy(want + off, pattern + from, len);
		ck_assert_int_eq(put(f, off, pattern + from, len,
		    rand_chance(&rnd, 1, 8)), 0);
		if (i % 50 == 7)
			expect(f, 0, CHUNK, want, CHUNK);
	}
	expect(f, 0, CHUNK, want, CHUNK);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, CHUNK, want, CHUNK);
}
END_TEST

START_TEST(one_write_a_chunk)
{
	struct client_file *f = make("a");

	for (unsigned i = 0; i < 10; i++)
		client_write(f, &reqs[i].io, io_done, i * 5000, pattern, 1000,
		    true);
	sim_clock_run(world, NS_PER_S);
	for (unsigned i = 0; i < 10; i++)
		ck_assert(reqs[i].done);
	ck_assert_uint_eq(saw.writes_at_once, 1);
}
END_TEST

START_TEST(direct_writes_are_stored_when_they_return)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(put(f, 500, pattern, 200000, true), 0);
	/* The buffered one went first, since they overlap. */
	ck_assert_uint_eq(saw.calls[MSG_write], 5);
	expect(f, 0, 500, pattern, 500);
	expect(f, 500, 200000, pattern, 200000);
}
END_TEST

/* Nobody has heard of us for so long that a file we have open was removed. */
static void
lose_session(ino_id ino)
{
	files[ino - 10].ino = 0;
	for (unsigned i = 0; i < CHUNKS; i++)
		if (chunks[i].id.ino == ino)
			chunks[i].used = false;
	saw.server_run++;
	bad.method = MSG_session;
	bad.times = ~0u;
	bad.rc = -ETIMEDOUT;
	sim_clock_run(world, 5 * NS_PER_S);
}

START_TEST(removed_while_unheard)
{
	struct client_file *f = make("a"), *g, *h = make("b");
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDWR);
	put(f, 0, pattern, 100000, false);
	put(h, CHUNK + 5000, pattern, 1000, false);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(h), 0);
	lose_session(ino);
	/* What is not there may be a hole or lost: neither is said before it is known. */
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	client_read(h, &reqs[3].io, io_done, 0, 1000);
	sim_clock_run(world, NS_PER_S);
	ck_assert(!reqs[2].done && !reqs[3].done);
	bad.times = 0;
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert(reqs[2].done && reqs[3].done);
	ck_assert_int_eq(reqs[2].rc, -ESTALE);
	ck_assert_int_eq(reqs[3].rc, 0);
	client_read_done(c, &reqs[3].io);
	reqs[2].done = reqs[3].done = false;
	/* From now on it is known. */
	ck_assert_int_eq(put(g, 0, pattern, 10, false), -ESTALE);
	client_read(g, &reqs[2].io, io_done, 0, 1000);
	ck_assert_int_eq(wait_for(&reqs[2]), -ESTALE);
	ck_assert_int_eq(sync_file(f), 0);	/* nothing of it was unsaved */
	expect(h, CHUNK + 5000, 1000, pattern, 1000);
}
END_TEST

START_TEST(written_while_unheard)
{
	struct client_file *f = make("a"), *g;
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDWR);
	put(f, 0, pattern, 100, true);	/* acknowledged, its length is not told */
	lose_session(ino);
	ck_assert_int_eq(put(f, 200000, pattern, 100, false), 0);
	bad.times = 0;
	ck_assert_int_eq(sync_file(f), -ESTALE);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(g), -ESTALE);
	ck_assert_int_eq(sync_file(g), 0);
}
END_TEST

/* We were not heard of for so long that the server gave our session up. */
static void
end_session(void)
{
	saw.server_run++;
	saw.ended = true;
	sim_clock_run(world, 2 * NS_PER_S);	/* the next beat tells */
}

static const struct {
	const char *what;
	bool	 acked, sync;	/* the write had reached storage; and was synced */
	bool	 gone;		/* and the file was removed meanwhile */
	char	 first;		/* what the application does next */
	int	 want, then;
	unsigned stored;	/* writes at storage after all */
} losses[] = {
	{ "unwritten, fsync", false, false, false, 's', -EIO, 0, 0 },
	{ "unwritten, write", false, false, false, 'w', -EIO, 0, 0 },
	{ "unwritten, direct write", false, false, false, 'd', -EIO, 0, 0 },
	{ "unsynced, fsync", true, false, false, 's', -EIO, 0, 1 },
	{ "unsynced, write", true, false, false, 'w', -EIO, 0, 1 },
	{ "synced, fsync", true, true, false, 's', 0, 0, 1 },
	{ "synced, write", true, true, false, 'w', 0, 0, 2 },
	{ "unwritten and removed", false, false, true, 's', -EIO, 0, 0 },
	{ "unsynced and removed", true, false, true, 'w', -EIO, 0, 1 },
	{ "synced and removed", true, true, true, 'w', -ESTALE, 0, 1 },
};

START_TEST(unsaved_data_of_an_ended_session)
{
	struct client_file *f = make("a"), *g, *h = make("b");
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDONLY);
	ck_assert_int_eq(put(f, 0, pattern, 1000, losses[_i].acked), 0);
	if (losses[_i].sync)
		ck_assert_int_eq(sync_file(f), 0);
	if (losses[_i].gone)
		files[ino - 10].ino = 0;
	end_session();
	ck_assert_uint_eq(saw.announced, 3);
	if (losses[_i].first == 's')
		ck_assert_msg(sync_file(f) == losses[_i].want, "%s",
		    losses[_i].what);
	else {
		ck_assert_msg(put(f, 0, pattern + 1, 10,
		    losses[_i].first == 'd') == losses[_i].want, "%s",
		    losses[_i].what);
		/* a write tells, and so does the close that follows */
		if (losses[_i].want == -EIO)
			ck_assert_int_eq(sync_file(f), -EIO);
		else
			(void)sync_file(f);
	}
	ck_assert_msg(sync_file(f) == losses[_i].then, "%s", losses[_i].what);
	ck_assert_int_eq(sync_file(g), 0);		/* it wrote nothing */
	ck_assert_int_eq(sync_file(h), 0);
	ck_assert_msg(saw.calls[MSG_write] == losses[_i].stored, "%s: %u",
	    losses[_i].what, saw.calls[MSG_write]);
	ck_assert_int_eq(put(h, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(h), 0);
	expect(h, 0, 1000, pattern, 1000);
	if (losses[_i].gone) {
		ck_assert_int_eq(put(f, 0, pattern, 1000, false), -ESTALE);
	} else {
		/* nothing dropped is read, nothing new is lost */
		ck_assert_int_eq(put(f, 0, pattern + 7, 100, false), 0);
		ck_assert_int_eq(sync_file(f), 0);
		expect(f, 0, 100, pattern + 7, 100);
	}
	client_release(f);
	client_release(g);
	client_release(h);
	sim_clock_run(world, NS_PER_S);
	ck_assert_uint_eq(c->inodes.n, 0);
	ck_assert_uint_eq(c->ext_n, 0);
}
END_TEST

/* Writes of every stage: none is stored any more, whoever waits is told. */
START_TEST(writes_under_way_when_a_session_ends)
{
	struct client_file *f = make("a");

	bad.method = MSG_write;
	bad.times = ~0u;
	bad.rc = _i == 0 ? ERR_BUSY : -ETIMEDOUT;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 300000, false);
	client_write(f, &reqs[2].io, io_done, 5000, pattern, 1000, true);
	client_write(f, &reqs[4].io, io_done, 400000, pattern, 1000, true);
	client_fsync(f, &reqs[5].op, op_done);
	sim_clock_run(world, 5 * NS_PER_MS);
	end_session();
	bad.times = 0;
	sim_clock_run(world, 100 * NS_PER_MS);
	ck_assert(reqs[1].done);
	ck_assert(reqs[2].done && reqs[2].rc == -EIO);
	reqs[1].done = reqs[2].done = false;
	ck_assert(reqs[4].done && reqs[4].rc == -EIO);
	ck_assert(reqs[5].done && reqs[5].rc == -EIO);
	ck_assert_uint_eq(c->ext_n, 0);
	ck_assert_uint_eq(c->dirty_bytes, 0);
	ck_assert_uint_eq(c->sending_n, 0);
	ck_assert_int_eq(put(f, 0, pattern, 300000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, 300000, pattern, 300000);
}
END_TEST

/* The server was away as long, but it is a new run: nothing has happened to our data. */
START_TEST(a_new_run_takes_nothing_away)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	bad.method = MSG_session;
	bad.times = ~0u;
	bad.rc = -ETIMEDOUT;
	sim_clock_run(world, 4 * NS_PER_S);
	bad.times = 0;
	saw.server_run++;
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, 1000, pattern, 1000);
}
END_TEST

START_TEST(memory_holds_writers_up)
{
	struct client_file *f = make("a");
	unsigned returned = 0;

	client_close(c);
	c = NULL;
	(void)f;
	conf.client_memory = 8 << 20;
	ready = false;
	start();
	f = make("b");
	bad.method = MSG_write;
	bad.times = ~0u;
	bad.rc = ERR_BUSY;
	for (unsigned i = 0; i < 8; i++)
		client_write(f, &reqs[i].io, io_done, i * 700000ull, pattern,
		    700000, false);
	sim_clock_run(world, 2 * NS_PER_S);
	for (unsigned i = 0; i < 8; i++)
		returned += reqs[i].done;
	ck_assert_uint_lt(returned, 8);
	ck_assert_uint_gt(returned, 3);
	bad.times = 0;
	sim_clock_run(world, 2 * NS_PER_S);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert(reqs[i].done);
		ck_assert_int_eq(reqs[i].rc, 0);
		reqs[i].done = false;
	}
	ck_assert_uint_eq(c->ext_bytes, c->dirty_bytes);
}
END_TEST

START_TEST(reads_wait_for_memory)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	client_close(c);
	c = NULL;
	conf.client_memory = 3 << 20;
	ready = false;
	start();
	f = open_ino(10, O_RDONLY);
	for (unsigned i = 4; i < 12; i++)
		client_read(f, &reqs[i].io, io_done, 0, sizeof(pattern));
	for (unsigned i = 4; i < 12; i++) {
		sim_clock_run(world, 100 * NS_PER_MS);
		ck_assert_msg(reqs[i].done, "read %u", i);
		ck_assert(i > 4 || !reqs[4 + 3].done);
		ck_assert_uint_eq(reqs[i].io.done, sizeof(pattern));
		reqs[i].done = false;
		client_read_done(c, &reqs[i].io);
	}
	ck_assert_uint_eq(mem_used_bytes(c->pool), 0);
}
END_TEST

/* ---- trouble ---- */

START_TEST(a_failed_write_is_told_once_to_each)
{
	struct client_file *f = make("a"), *g = open_ino(10, O_RDWR);

	bad.method = MSG_write;
	bad.times = 1;
	bad.rc = -ENOSPC;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), -ENOSPC);
	ck_assert_int_eq(put(g, 0, pattern, 1000, false), -ENOSPC);
	ck_assert_int_eq(sync_file(g), -ENOSPC);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_int_eq(put(g, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_int_eq(put(f, 5, pattern, 1000, true), 0);
	bad.times = 1;
	ck_assert_int_eq(put(f, 5, pattern, 1000, true), -ENOSPC);
	ck_assert_int_eq(sync_file(f), 0);
}
END_TEST

START_TEST(writes_survive_lost_answers)
{
	struct client_file *f = make("a");
	unsigned acted = saw.acted;

	bad.method = MSG_write;
	bad.times = 2;
	bad.rc = -ECONNRESET;
	bad.executed = true;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 3);
	ck_assert_uint_eq(saw.acted, acted + 2);	/* one write, one sync */
}
END_TEST

START_TEST(a_new_head_gets_the_write)
{
	struct client_file *f = make("a");
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };
	uint64_t begun;

	bad.method = MSG_write;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_fsync(f, &reqs[3].op, op_done);
	sim_clock_run(world, 10 * NS_PER_MS);
	begun = clock_now(clk);
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	ck_assert_int_eq(wait_for(&reqs[3]), 0);
	/* It did not wait for the deadline of the call to the dead one. */
	ck_assert_uint_lt(clock_now(clk) - begun, 10 * NS_PER_MS);
	ck_assert_uint_eq(saw.calls[MSG_write], 2);
}
END_TEST

START_TEST(a_recovering_chain_is_waited_for)
{
	struct client_file *f = make("a");
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	set_chain(1, 2, CHAIN_RECOVERING, t1, 2);
	set_chain(2, 2, CHAIN_RECOVERING, t2, 2);
	ck_assert_int_eq(put(f, 0, pattern + 1, 1000, false), 0);
	client_fsync(f, &reqs[3].op, op_done);
	client_read(f, &reqs[5].io, io_done, 0, 2000);
	sim_clock_run(world, 2 * NS_PER_S);
	ck_assert(!reqs[3].done);
	set_chain(1, 3, CHAIN_SERVING, t1, 2);
	set_chain(2, 3, CHAIN_SERVING, t2, 2);
	routing_told();
	ck_assert_int_eq(wait_for(&reqs[3]), 0);
	ck_assert(reqs[5].done);
	ck_assert_int_eq(reqs[5].rc, 0);
	client_read_done(c, &reqs[5].io);
}
END_TEST

START_TEST(truncated_elsewhere)
{
	struct client_file *f = make("a");
	struct msg_attr *a = file_of(10);

	ck_assert_int_eq(put(f, 0, pattern, 100000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	truncate_file(a, 10);
	ck_assert_int_eq(put(f, 20, pattern, 100, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(a->size, 120);
	expect(f, 10, 10, zeros, 10);
	expect(f, 20, 200, pattern, 100);
	ck_assert_uint_eq(size_of(10), 120);
}
END_TEST

START_TEST(truncated_here)
{
	struct client_file *f = make("a"), *g;
	struct msg_setattr set = { .valid = META_SET_SIZE, .size = 50 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_setattr(c, &reqs[5].op, op_done, NULL, 10, &set);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
	ck_assert_uint_eq(reqs[5].entry.attr.size, 50);
	ck_assert_uint_eq(size_of(10), 50);
	expect(f, 0, 1000, pattern, 50);
	ck_assert_int_eq(put(f, 60, pattern, 10, false), 0);
	ck_assert_uint_eq(size_of(10), 70);
	g = open_ino(10, O_RDWR | O_TRUNC);
	ck_assert_uint_eq(size_of(10), 0);
	expect(g, 0, 100, "", 0);
	ck_assert_int_eq(put(g, 0, pattern, 10, false), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_uint_eq(file_of(10)->size, 10);
}
END_TEST

START_TEST(truncated_by_create)
{
	struct client_file *f = make("a"), *g = NULL;

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(put(f, 1000, pattern, 1000, false), 0);
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644,
	    O_RDWR | O_TRUNC, &g);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	ck_assert_uint_eq(size_of(10), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_uint_eq(file_of(10)->size, 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 1);	/* the rest is dropped */
}
END_TEST

START_TEST(times_that_were_set_stay)
{
	struct client_file *f = make("a");
	struct msg_setattr set = { .valid = META_SET_MTIME, .mtime = 5 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_setattr(c, &reqs[5].op, op_done, NULL, 10, &set);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
	ck_assert_int_eq(reqs[5].entry.attr.mtime, 5);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(file_of(10)->mtime, 5);
}
END_TEST

static const struct {
	const char *what;
	int rc;
	bool damage;
	unsigned times;
	int want;
	uint64_t within_ms;
} read_troubles[] = {
	{ "one replica has gone", -ECONNREFUSED, false, 1, 0, 5 },
	{ "two have", -ECONNREFUSED, false, 2, 0, 8 },
	{ "all had, and come back", -ECONNREFUSED, false, 3, 0, 20 },
	{ "it holds no lease", ERR_NO_LEASE, false, 2, 0, 3 },
	{ "it is moving", ERR_CHAIN_RECOVERING, false, 2, 0, 3 },
	{ "it is stopping", ERR_STOPPING, false, 2, 0, 3 },
	{ "not its target any more", ERR_NOT_OWNER, false, 2, 0, 3 },
	{ "one is silent", -ETIMEDOUT, false, 1, 0, 1100 },
	{ "damaged on disk", ERR_CORRUPT, false, 2, 0, 8 },
	{ "damaged on the way", 0, true, 2, 0, 8 },
	{ "damaged everywhere", ERR_CORRUPT, false, 3, ERR_CORRUPT, 8 },
	{ "an error of one disk", -EIO, false, 1, 0, 5 },
	{ "an error of all", -EIO, false, 3, -EIO, 8 },
	{ "stale routing", ERR_STALE_CHAIN, false, 2, 0, 20 },
	{ "busy", ERR_BUSY, false, 5, 0, 50 },
};

START_TEST(reads_find_a_replica)
{
	struct client_file *f = make("a");
	uint64_t begun;

	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	bad.method = MSG_read;
	bad.times = read_troubles[_i].times;
	bad.rc = read_troubles[_i].rc;
	bad.damage = read_troubles[_i].damage;
	begun = clock_now(clk);
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	ck_assert_msg(wait_for(&reqs[2]) == read_troubles[_i].want, "%s: %d",
	    read_troubles[_i].what, reqs[2].rc);
	ck_assert_msg(clock_now(clk) - begun <=
	    read_troubles[_i].within_ms * NS_PER_MS, "%s took %llu us",
	    read_troubles[_i].what,
	    (unsigned long long)(clock_now(clk) - begun) / 1000);
	if (reqs[2].rc == 0)
		ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
	client_read_done(c, &reqs[2].io);
}
END_TEST

START_TEST(reads_are_batched)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	expect(f, 0, sizeof(pattern), pattern, sizeof(pattern));
	ck_assert_uint_eq(saw.calls[MSG_read], 2);	/* 16 chunks, 2 chains */
}
END_TEST

/* ---- late reads ---- */

#define STOPPED	(~0ull >> 1)

static struct client_file *
hedge_file(void)
{
	struct client_file *f = make("a");

	conf.client_hedge = 50;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	ck_assert_int_eq(sync_file(f), 0);
	return f;
}

static unsigned
calls_now(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		n += slots[i].call != NULL && slots[i].method != MSG_session;
	return n;
}

/* Read @n times @len bytes; the longest took so many ms. */
static uint64_t
slowest_ms(struct client_file *f, unsigned n, uint32_t len)
{
	uint64_t worst = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t begun = clock_now(clk), off = (i % 16) * CHUNK;

		expect(f, off, len, pattern + off, len);
		if (clock_now(clk) - begun > worst)
			worst = clock_now(clk) - begun;
		/* nobody can write into what the reader was given */
		ck_assert_uint_eq(calls_now(), 0);
	}
	return worst / NS_PER_MS;
}

/* A storage process was stopped: its connections stay and nothing comes. */
START_TEST(a_stopped_replica_is_left_alone)
{
	struct client_file *f = hedge_file();
	uint32_t asked;

	(void)slowest_ms(f, 30, 1000);
	read_ns[1] = STOPPED;
	ck_assert_uint_le(slowest_ms(f, 30, 1000), 52);
	asked = saw.reads_of[1];
	ck_assert_uint_le(slowest_ms(f, 100, 1000), 2);
	ck_assert_uint_eq(saw.reads_of[1], asked);
	/* now and then one read finds out */
	sim_clock_run(world, 3 * NS_PER_S);
	for (unsigned i = 4; i < 12; i++)
		client_read(f, &reqs[i].io, io_done, i * CHUNK, 1000);
	sim_clock_run(world, 60 * NS_PER_MS);
	for (unsigned i = 4; i < 12; i++) {
		ck_assert(reqs[i].done && reqs[i].rc == 0);
		ck_assert_mem_eq(reqs[i].io.iov[0].iov_base,
		    pattern + i * CHUNK, 1000);
		client_read_done(c, &reqs[i].io);
	}
	ck_assert_uint_le(saw.reads_of[1], asked + 2);	/* one a target */
	/* and it is used again once it answers */
	read_ns[1] = 0;
	sim_clock_run(world, 20 * NS_PER_S);
	asked = saw.reads_of[1];
	ck_assert_uint_le(slowest_ms(f, 90, 1000), 2);
	ck_assert_uint_ge(saw.reads_of[1], asked + 20);
}
END_TEST

/* All that was under way when it stopped gets away, however much it is. */
START_TEST(reads_under_way_get_away)
{
	static struct req many[200];
	struct client_file *f = hedge_file();
	uint64_t off = 0;

	memset(many, 0, sizeof(many));
	read_ns[1] = read_ns[2] = STOPPED;
	for (unsigned i = 0; i < 200; i++)
		client_read(f, &many[i].io, io_done, (i * 7919ull) % 900000,
		    1000);
	sim_clock_run(world, 300 * NS_PER_MS);
	for (unsigned i = 0; i < 200; i++) {
		off = (i * 7919ull) % 900000;
		ck_assert_msg(many[i].done && many[i].rc == 0, "read %u", i);
		ck_assert_mem_eq(many[i].io.iov[0].iov_base, pattern + off,
		    many[i].io.iov[0].iov_len);
		client_read_done(c, &many[i].io);
	}
	ck_assert_uint_eq(calls_now(), 0);
}
END_TEST

/* A cluster that is slow as a whole is not asked for everything twice. */
START_TEST(few_reads_are_asked_twice)
{
	struct client_file *f = hedge_file();
	uint32_t asked;

	read_ns[1] = read_ns[2] = read_ns[3] = 200 * NS_PER_MS;
	(void)slowest_ms(f, 64, 1000);
	asked = saw.calls[MSG_read];
	(void)slowest_ms(f, 400, 1000);
	ck_assert_uint_le(saw.calls[MSG_read] - asked, 400 + 24);
	/* one that is slower than most pays */
	read_ns[1] = 600 * NS_PER_MS;
	ck_assert_uint_le(slowest_ms(f, 10, 1000), 500);
	conf.client_hedge = 0;
	asked = saw.calls[MSG_read];
	(void)slowest_ms(f, 10, 1000);
	ck_assert_uint_eq(saw.calls[MSG_read] - asked, 10);
}
END_TEST

static const struct {
	const char *what;
	uint64_t ns[4];			/* of the nodes */
	int	 rc;			/* of the second call */
	bool	 damage;
	uint64_t least_ms, most_ms;
} twins[] = {
	{ "the first one answers after all", { 0, 70 * NS_PER_MS, STOPPED,
	  STOPPED }, 0, false, 70, 71 },
	{ "the other one refuses", { 0, 70 * NS_PER_MS, 0, 0 }, ERR_BUSY, false,
	  70, 71 },
	{ "the other one is damaged", { 0, 70 * NS_PER_MS, 0, 0 }, 0, true, 70,
	  71 },
	{ "the first one times out, a third answers", { 0, STOPPED, STOPPED, 0 },
	  0, false, 50, 110 },
	{ "the other one has not got it", { 0, 70 * NS_PER_MS, 0, 0 },
	  ERR_STALE_CHAIN, false, 70, 71 },
};

START_TEST(the_first_good_answer_counts)
{
	struct client_file *f = hedge_file();
	const struct routing_chain *ch;
	uint64_t begun;

	/* every replica is the first one once */
	for (unsigned first = 1; first <= 3; first++) {
		client_close(c);
		ready = false;
		memset(read_ns, 0, sizeof(read_ns));
		start();
		f = open_ino(10, O_RDONLY);
		c->turn = first - 1;
		ch = routing_chain(routing, client_inode_chain(f->inode, 0));
		for (unsigned k = 0; k < 3; k++)
			read_ns[ch->targets[(first - 1 + k) % 3] % 10] =
			    twins[_i].ns[k + 1];
		client_read(f, &reqs[2].io, io_done, 0, 1000);
		begun = clock_now(clk);
		bad.method = MSG_read;
		bad.times = twins[_i].rc != 0 || twins[_i].damage ? 1 : 0;
		bad.rc = twins[_i].rc;
		bad.damage = twins[_i].damage;
		ck_assert_int_eq(wait_for(&reqs[2]), 0);
		ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
		client_read_done(c, &reqs[2].io);
		begun = (clock_now(clk) - begun) / NS_PER_MS;
		ck_assert_msg(begun >= twins[_i].least_ms &&
		    begun <= twins[_i].most_ms, "%s: %llu ms", twins[_i].what,
		    (unsigned long long)begun);
		ck_assert_uint_eq(calls_now(), 0);
	}
}
END_TEST

/* Routing says which replicas serve; the others are not asked. */
START_TEST(only_serving_replicas_are_asked)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 11, 13 }, t2[] = { 22, 23, 21 };

	set_chain_states(1, 2, t1, 3, 1);
	set_chain_states(2, 2, t2, 3, 1);
	routing_told();
	sim_clock_run(world, NS_PER_MS);
	memset(saw.reads_of, 0, sizeof(saw.reads_of));
	(void)slowest_ms(f, 50, 1000);
	ck_assert_uint_eq(saw.reads_of[1] + saw.reads_of[3], 0);
	ck_assert_uint_eq(saw.reads_of[2], 50);
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(saw.last_node, 2);
}
END_TEST

/* What waits for routing goes on when there is some, not when its pause is over. */
START_TEST(new_routing_ends_pauses)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };
	uint64_t begun, refreshes = saw.refreshes;

	bad.method = _i == 0 ? MSG_read : MSG_write;
	bad.times = ~0u;
	bad.rc = ERR_CHAIN_RECOVERING;
	if (_i == 0)
		client_read(f, &reqs[2].io, io_done, 0, 1000);
	else
		client_write(f, &reqs[2].io, io_done, 0, pattern, 1000, true);
	for (unsigned i = 0; i < 20; i++) {
		sim_clock_run(world, 101 * NS_PER_MS);
		ck_assert(!reqs[2].done);
		/* nor is it ever longer than a tenth of a second */
		ck_assert_uint_gt(saw.refreshes, refreshes);
		refreshes = saw.refreshes;
	}
	bad.times = 0;
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	begun = clock_now(clk);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_le(clock_now(clk) - begun, 2 * NS_PER_MS);
	if (_i == 0)
		client_read_done(c, &reqs[2].io);
}
END_TEST

/* ---- read-ahead ---- */

START_TEST(reads_ahead)
{
	struct client_file *f = make("a");
	unsigned calls;

	conf.client_read_ahead = 256 << 10;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	for (unsigned i = 0; i < 32; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	/* The first ones alone, then a chunk a call. */
	ck_assert_uint_lt(saw.calls[MSG_read], 22);
	calls = saw.calls[MSG_read];
	expect(f, sizeof(pattern) - 100, 200, pattern + sizeof(pattern) - 100,
	    100);
	ck_assert_uint_le(saw.calls[MSG_read], calls + 1);
}
END_TEST

START_TEST(read_ahead_is_never_stale)
{
	struct client_file *f = make("a"), *g;

	conf.client_read_ahead = 256 << 10;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	for (unsigned i = 0; i < 4; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	/* Written here. */
	ck_assert_int_eq(put(f, 150000, zeros, 100, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 150000, 100, zeros, 100);
	for (unsigned i = 8; i < 12; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	ck_assert_int_eq(put(f, 12 * 32768u, zeros, 100, true), 0);
	expect(f, 12 * 32768u, 100, zeros, 100);
	/* Written elsewhere: seen after the next open. */
	for (unsigned i = 8; i < 12; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	memset(chunks[chunk_find((struct chunk_id){ 10, 7 }, false)].b, 7,
	    CHUNK);
	file_of(10)->change++;
	g = open_ino(10, O_RDONLY);
	ck_assert(!client_file_unchanged(g));
	client_read(g, &reqs[2].io, io_done, 7 * CHUNK, 10);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_int_eq(((uint8_t *)reqs[2].io.iov[0].iov_base)[0], 7);
	client_read_done(c, &reqs[2].io);
	client_read(f, &reqs[2].io, io_done, 7 * CHUNK, 10);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_int_eq(((uint8_t *)reqs[2].io.iov[0].iov_base)[0], 7);
	client_read_done(c, &reqs[2].io);
}
END_TEST

START_TEST(unchanged_content_is_known)
{
	struct client_file *f = make("a"), *g;

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	client_release(f);
	sim_clock_run(world, 10 * NS_PER_MS);
	g = open_ino(10, O_RDONLY);
	ck_assert(client_file_unchanged(g));	/* only we had changed it */
	client_release(g);
	sim_clock_run(world, 10 * NS_PER_MS);
	file_of(10)->change++;
	g = open_ino(10, O_RDONLY);
	ck_assert(!client_file_unchanged(g));
}
END_TEST

/* ---- the end ---- */

START_TEST(release_settles)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_release(f);
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_uint_eq(saw.calls[MSG_close], 1);
	ck_assert_uint_eq(file_of(10)->size, 1000);
	ck_assert_uint_eq(c->inodes.n, 0);
	f = open_ino(10, O_RDONLY);
	client_release(f);
	ck_assert_uint_eq(saw.calls[MSG_close], 2);
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_uint_eq(c->inodes.n, 0);
}
END_TEST

START_TEST(stop_writes_back)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_stop(c, on_stop, NULL);
	ck_assert(!stopped);
	ck_assert(sim_clock_run_until(world, is_true, &stopped, NS_PER_S));
	ck_assert_uint_eq(file_of(10)->size, 1000);
	ck_assert(saw.left);
}
END_TEST

/* Close at every moment of a busy life: nothing leaks, nothing runs afterwards. */
START_TEST(close_at_any_time)
{
	struct client_file *f = make("a"), *g = NULL;
	unsigned steps = (unsigned)_i;

	conf.client_read_ahead = 256 << 10;
	conf.client_hedge = 1;
	read_ns[1] = _i % 4 < 2 ? STOPPED : 0;
	bad.method = _i % 2 ? MSG_read : MSG_write;
	bad.times = 2;
	bad.rc = ERR_BUSY;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 300000, false);
	client_write(f, &reqs[2].io, io_done, 1000, pattern, 200000, true);
	client_read(f, &reqs[3].io, io_done, 0, 300000);
	client_fsync(f, &reqs[4].op, op_done);
	client_file_open(c, &reqs[5].op, op_done, NULL, 10, O_RDWR | O_TRUNC,
	    &g);
	client_read(f, &reqs[6].io, io_done, 0, 65536);
	client_read(f, &reqs[7].io, io_done, 65536, 65536);
	client_read(f, &reqs[8].io, io_done, 131072, 65536);
	if (_i % 3 == 0)
		client_stop(c, on_stop, NULL);
	while (steps-- > 0 && sim_clock_step(world))
		continue;
}
END_TEST

static void
close_now(struct client_op *op, int rc)
{
	(void)op;
	(void)rc;
	client_close(c);
	c = NULL;
}

static void
close_now_io(struct client_io *io, int rc)
{
	close_now(NULL, rc);
	(void)io;
}

START_TEST(close_from_a_callback)
{
	struct client_file *f = make("a");

	client_write(f, &reqs[1].io, io_done, 0, pattern, 100, true);
	if (_i == 0)			/* from a reply */
		client_getattr(c, &reqs[0].op, close_now, NULL, 10);
	else if (_i == 1)		/* from the loop */
		client_lookup(c, &reqs[0].op, close_now, NULL, 1, "");
	else {
		client_read(f, &reqs[0].io, close_now_io, 1 << 20, 10);
		client_lookup(c, &reqs[2].op, op_done, NULL, 1, "");
	}
	sim_clock_run(world, NS_PER_S);
	ck_assert_ptr_null(c);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client_io");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

#define LOOP(t, rows) tcase_add_loop_test(tc, t, 0, sizeof(rows) / sizeof(rows[0]))
	tcase_add_checked_fixture(tc, setup, teardown);
	LOOP(changes_act_once, retries);
	tcase_add_test(tc, done_waits_for_the_oldest);
	LOOP(another_metadata_server_leads, elections);
	tcase_add_test(tc, an_election_takes_a_while);
	tcase_add_test(tc, an_election_without_the_silent_one);
	tcase_add_test(tc, slow_is_not_silent);
	tcase_add_test(tc, gives_up_when_told_to);
	tcase_add_test(tc, names_are_checked);
	tcase_add_test(tc, ttl_is_what_is_left);
	tcase_add_test(tc, opens_are_told_again);
	tcase_add_test(tc, written_data_is_read);
	tcase_add_test(tc, small_appends_become_one_write);
	tcase_add_test(tc, holes_are_zeros);
	tcase_add_test(tc, overlapping_writes_keep_their_order);
	tcase_add_test(tc, one_write_a_chunk);
	tcase_add_test(tc, direct_writes_are_stored_when_they_return);
	tcase_add_test(tc, removed_while_unheard);
	tcase_add_test(tc, written_while_unheard);
	LOOP(unsaved_data_of_an_ended_session, losses);
	tcase_add_loop_test(tc, writes_under_way_when_a_session_ends, 0, 2);
	tcase_add_test(tc, a_new_run_takes_nothing_away);
	tcase_add_test(tc, memory_holds_writers_up);
	tcase_add_test(tc, reads_wait_for_memory);
	tcase_add_test(tc, a_failed_write_is_told_once_to_each);
	tcase_add_test(tc, writes_survive_lost_answers);
	tcase_add_test(tc, a_new_head_gets_the_write);
	tcase_add_test(tc, a_recovering_chain_is_waited_for);
	tcase_add_test(tc, truncated_elsewhere);
	tcase_add_test(tc, truncated_here);
	tcase_add_test(tc, truncated_by_create);
	tcase_add_test(tc, times_that_were_set_stay);
	LOOP(reads_find_a_replica, read_troubles);
	tcase_add_test(tc, reads_are_batched);
	tcase_add_test(tc, a_stopped_replica_is_left_alone);
	tcase_add_test(tc, reads_under_way_get_away);
	tcase_add_test(tc, few_reads_are_asked_twice);
	LOOP(the_first_good_answer_counts, twins);
	tcase_add_test(tc, only_serving_replicas_are_asked);
	tcase_add_loop_test(tc, new_routing_ends_pauses, 0, 2);
	tcase_add_test(tc, reads_ahead);
	tcase_add_test(tc, read_ahead_is_never_stale);
	tcase_add_test(tc, unchanged_content_is_known);
	tcase_add_test(tc, release_settles);
	tcase_add_test(tc, stop_writes_back);
	tcase_add_loop_test(tc, close_at_any_time, 0, 60);
	tcase_add_loop_test(tc, close_from_a_callback, 0, 3);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
