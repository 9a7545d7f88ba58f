/* SPDX-License-Identifier: MIT */
/* check_rig.h - servers that answer fsd check by script: one address is manager, metadata and
 * all replicas of two chains; the tree in the image is a real one. */
#ifndef TESTS_CHECK_RIG_H
#define TESTS_CHECK_RIG_H

#include "conf/crc32c.h"
#include "meta/dirent.h"
#include "meta/inode.h"
#include "roles/check.h"
#include "tests/meta_harness.h"
#include "tests/net_rig.h"

#define REPLICAS	3u
#define CHUNKS_MAX	16u
#define FILES		3u
#define PAGE		4u		/* rows of an image, or of a list */

struct chunk {
	chain_id	chain;
	struct chunk_id id;
	uint64_t	committed[REPLICAS], pending[REPLICAS];
	uint32_t	check[REPLICAS];
	unsigned	wrong_looks;	/* then all is as on the first replica; 0: never */
	bool		rises;		/* written to all the time */
	bool		damaged[REPLICAS];
};

static struct {
	struct rig	rig;
	struct harness	h;
	ino_id		files[FILES];
	struct routing *routing;
	struct check   *check;
	bool		done;
	int		rc;
	char	       *out;
	size_t		out_n;
	struct chunk	chunks[CHUNKS_MAX];
	unsigned	chunk_n, version;	/* of the chains */
	unsigned	stale_lists;	/* so many lists find that the chain has moved */
	int		image_fail;	/* the answer to the second page */
	unsigned	image_fails;
	unsigned	others;		/* so many times another check reads */
	unsigned	images, cuts, mends, repairs, lost_replies;
	bool		repeats;	/* the first page is all that comes */
	bool		breaks;		/* a chain moves for ever once it is cut */
	chain_id	broken;
	bool		mute;		/* no metadata server leads */
	unsigned	waits;		/* for an image that shows repairs */
	target_id	mended_from;
	int		mend_rc, repair_rc;
	target_id	resynced;	/* which replica */
	int		resync_rc;
	uint64_t	image, read;	/* the next, and the last one of this check */
} T;

static void
routing_rep(struct net_req *req)
{
	char addr[NET_ADDR_TEXT];
	struct msg_str addrs[1];
	struct msg_rt_node node = { .id = 1, .name = msg_str("box"),
		.roles = NODE_STORAGE | NODE_METADATA, .state = NODE_UP };
	struct msg_rt_target targets[2 * REPLICAS];
	uint32_t ids[2][REPLICAS], states[REPLICAS], both[] = { 1, 2 };
	struct msg_rt_chain chains[2];
	struct msg_rt_table table = { .id = 1, .version = 1, .chains = { both, 2 } };
	uint64_t at = 1 + T.version;
	struct msg_routing_rep rep = { .version = at, .nodes = { &node, 1 },
		.targets = { targets, 2 * REPLICAS }, .chains = { chains, 2 },
		.tables = { &table, 1 } };

	net_addr_text(&T.rig.addr, addr);
	addrs[0] = msg_str(addr);
	node.addrs.v = addrs;
	node.addrs.n = 1;
	node.changed = table.changed = 1;
	for (uint32_t c = 0; c < 2; c++) {
		for (uint32_t i = 0; i < REPLICAS; i++) {
			ids[c][i] = 10 * (c + 1) + i;
			states[i] = TARGET_SERVING;
			targets[c * REPLICAS + i] = (struct msg_rt_target){
				.id = ids[c][i], .changed = 1, .node = 1,
				.disk = { { 1 } }, .chain = c + 1 };
		}
		chains[c] = (struct msg_rt_chain){ .id = c + 1, .changed = at,
			.version = T.version, .state = CHAIN_SERVING,
			.targets = { ids[c], REPLICAS },
			.states = { states, REPLICAS },
			.preferred = { ids[c], REPLICAS } };
	}
	/* the first answer is cut */
	if (((const struct msg_routing *)req->msg)->have == 0) {
		rep.version = 1;
		rep.chains.n = 0;
	}
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

/* A page of the harness's table. */
static void
image_rep(struct net_req *req)
{
	const struct msg_image *q = req->msg;
	struct msg_image_row rows[PAGE];
	static char bytes[PAGE][2][TABLE_VALUE_MAX];
	struct msg_image_rep rep = { .rows = { rows, 0 } };
	uint8_t key[TABLE_KEY_MAX];
	size_t key_len = q->after.n;

	if (T.mute) {
		net_reply(req, ERR_NOT_LEADER, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (q->image != 0 && T.image_fails > 0) {
		T.image_fails--;
		T.image++;
		net_reply(req, T.image_fail, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (q->image == 0 && T.others > 0) {
		T.others--;
		net_reply(req, -EBUSY, NULL, NULL, 0, NULL, NULL);
		return;
	}
	/* What was repaired shows after a while. */
	if (q->image == 0 && q->index > 0 && T.waits < 3) {
		ck_assert_uint_eq(q->index, 70 + T.repairs);
		T.waits++;
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (q->image == 0)
		T.images++;
	else
		ck_assert_uint_eq(q->image, T.image);
	ck_assert(q->image != 0 || q->instead == T.read);
	rep.image = T.read = T.image;
	if (T.repeats)
		key_len = 0;
	if (key_len > 0)
		memcpy(key, q->after.p, key_len);
	while (rep.rows.n < PAGE) {
		struct msg_image_row *r = &rows[rep.rows.n];
		char (*to)[TABLE_VALUE_MAX] = bytes[rep.rows.n];
		const void *found, *value;
		size_t value_len;

		if (table_seek(T.h.t, key_len > 0 ? (const void *)key : "", key_len,
		    key_len > 0, 0, &found, &key_len, &value, &value_len) != 0)
			break;
		memcpy(key, found, key_len);
		memcpy(to[0], found, key_len);
		memcpy(to[1], value, value_len);
		*r = (struct msg_image_row){ { to[0], (uint32_t)key_len },
			{ to[1], (uint32_t)value_len } };
		rep.rows.n++;
	}
	rep.more = rep.rows.n == PAGE;
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static int
by_id(const void *a, const void *b)
{
	return chunk_id_cmp(((const struct chunk *)a)->id,
	    ((const struct chunk *)b)->id);
}

static void
list_rep(struct net_req *req)
{
	const struct msg_list *q = req->msg;
	unsigned k = q->target % 10, n = 0;
	struct msg_list_row rows[PAGE];
	struct msg_list_rep rep = { .rows = { rows, 0 } };
	int rc = 0;

	if (T.stale_lists > 0) {
		T.stale_lists--;
		T.version++;
	}
	if (q->chain_version != T.version || q->chain == T.broken)
		rc = ERR_STALE_CHAIN;
	for (unsigned i = 0; i < T.chunk_n; i++) {
		struct chunk *c = &T.chunks[i];

		if (c->chain != q->chain || (!q->start &&
		    chunk_id_cmp(c->id, q->after) <= 0) ||
		    (c->committed[k] == 0 && c->pending[k] == 0))
			continue;
		if (n++ == PAGE || n > q->max)
			break;
		if (c->rises && k == 0) {
			c->committed[1]++;
			c->committed[0]++;
			c->pending[2]++;
		}
		rows[rep.rows.n++] = (struct msg_list_row){ .chunk = c->id,
			.committed = c->committed[k], .pending = c->pending[k],
			.len = 100, .check = c->check[k] };
		if (rc == 0 && k == REPLICAS - 1 && c->wrong_looks > 0 &&
		    --c->wrong_looks == 0)
			for (unsigned r = 0; r < REPLICAS; r++) {
				c->committed[r] = c->committed[0];
				c->check[r] = c->check[0];
				c->pending[r] = 0;
			}
	}
	rep.more = n > rep.rows.n;
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
cut_rep(struct net_req *req)
{
	const struct msg_cut *q = req->msg;
	struct msg_cut_rep rep = { 0 };

	ck_assert_uint_eq(q->epoch, UINT32_MAX);
	ck_assert_uint_eq(q->target, 10 * q->chain);
	T.cuts++;
	if (T.breaks) {
		T.broken = q->chain;
		rep.more = 1;
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
		return;
	}
	for (unsigned i = 0; i < T.chunk_n; i++)
		if (T.chunks[i].chain == q->chain && T.chunks[i].id.ino == q->ino)
			memset(T.chunks[i].committed, 0,
			    sizeof(T.chunks[i].committed));
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static struct chunk *
chunk_of(chain_id chain, struct chunk_id id)
{
	for (unsigned i = 0; i < T.chunk_n; i++)
		if (T.chunks[i].chain == chain && chunk_id_cmp(T.chunks[i].id, id) == 0)
			return &T.chunks[i];
	ck_abort_msg("chunk of %d", (int)id.ino);
}

static void
read_sent(void *ctx)
{
	(void)ctx;
}

static void
read_rep(struct net_req *req)
{
	static uint8_t bytes[100];
	const struct msg_read *q = req->msg;
	struct chunk *c = chunk_of(q->chain, q->items.v[0].chunk);
	unsigned k = q->target % 10;
	struct msg_read_result res = { .version = c->committed[k], .len = 100,
		.crc = crc32c(0, bytes, 100) };
	struct msg_read_rep rep = { .items = { &res, 1 } };
	struct net_piece piece = { bytes, 100, 0 };

	ck_assert_uint_eq(q->items.v[0].offset, 0);
	if (c->damaged[k])
		res = (struct msg_read_result){ .rc = ERR_CORRUPT };
	net_reply(req, 0, &rep, &piece, c->damaged[k] ? 0 : 1, read_sent, NULL);
}

static void
mend_rep(struct net_req *req)
{
	const struct msg_mend *q = req->msg;
	struct chunk *c = chunk_of(q->chain, q->chunk);
	unsigned k = q->target % 10, from = q->from % 10;

	ck_assert_uint_eq(q->version, c->committed[from]);
	ck_assert(!c->damaged[from]);
	T.mends++;
	T.mended_from = from;
	if (T.mend_rc == 0) {
		c->check[k] = c->check[from];
		c->damaged[k] = false;
	}
	net_reply(req, T.mend_rc, NULL, NULL, 0, NULL, NULL);
}

/* A metadata server that does it, and whose answers may be lost. */
static void
repair_rep(struct net_req *req)
{
	struct msg_repair_rep rep = { .index = 0 };
	int rc = T.repair_rc;

	T.repairs++;
	if (rc == 0)
		rc = h_change(&T.h, MSG_repair, req->msg, &rep);
	rep.index = 70 + T.repairs;
	if (T.lost_replies > 0) {
		T.lost_replies--;
		rc = ERR_NOT_LEADER;
	}
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
serve(void *ctx, struct net_req *req)
{
	(void)ctx;
	switch (req->method) {
	case MSG_routing:
		routing_rep(req);
		break;
	case MSG_image:
		image_rep(req);
		break;
	case MSG_list:
		list_rep(req);
		break;
	case MSG_cut:
		cut_rep(req);
		break;
	case MSG_read:
		read_rep(req);
		break;
	case MSG_mend:
		mend_rep(req);
		break;
	case MSG_repair:
		repair_rep(req);
		break;
	case MSG_session: {
		struct msg_session_rep rep = { 0 };

		ck_assert_uint_eq(((const struct msg_session *)req->msg)->leaving, 1);
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
		break;
	}
	case MSG_chain_resync: {
		const struct msg_chain_resync *q = req->msg;

		ck_assert_uint_eq(q->version, T.version);
		ck_assert_uint_eq(q->target / 10, q->chain);
		T.resynced = q->target % 10;
		net_reply(req, T.resync_rc, NULL, NULL, 0, NULL, NULL);
		break;
	}
	default:
		ck_abort_msg("method %x", req->method);
	}
}

/* ---- what there is ---- */

/* A chunk of @ino, the same on all replicas, where its layout puts it, or elsewhere. */
static struct chunk *
add(ino_id ino, uint32_t index, bool elsewhere)
{
	struct chunk *c = &T.chunks[T.chunk_n++];
	chain_id chain = 1;
	struct layout l;
	struct inode in;

	ck_assert_uint_le(T.chunk_n, CHUNKS_MAX);
	if (inode_get(T.h.t, ino, &in) == 0) {
		struct routing *r;
		struct routing_table t = { .id = 1, .version = 1, .changed = 1,
			.chain_n = 2, .chains = (uint32_t[]){ 1, 2 } };

		ck_assert_int_eq(routing_open(&r), 0);
		ck_assert_int_eq(routing_put_table(r, &t), 0);
		inode_layout(&in, &l);
		chain = layout_chain(r, &l, index);
		routing_close(r);
	}
	*c = (struct chunk){ .chain = elsewhere ? 3 - chain : chain,
		.id = { ino, index } };
	for (unsigned r = 0; r < REPLICAS; r++) {
		c->committed[r] = 5;
		c->check[r] = 0x1234 + index;
	}
	return c;
}

enum what { CLEAN, DIGEST, DAMAGED, PAIR, PAIR_DAMAGED, NONE_WHOLE, ALL_DIFFER, REFUSED,
	NOT_MENDED, BUSY, LACKS, VERSIONS, PASSES, PENDING, ORPHAN, MISPLACED, NEW,
	MOVES, LEADER, STALE_IMAGE, NO_INODE, BAD_INODE, NO_INODE_DATA, NLINK, LOST, MANY };

enum may { LOOK, REPAIR, DISCARD, TAIL, FIRST };

static void
arrange(enum what how)
{
	uint8_t key[KEY_INO_LEN];
	struct chunk *c = NULL;

	for (uint32_t i = 0; i < 9; i++)
		c = add(T.files[i % FILES], i / FILES, how == MISPLACED && i == 4);
	switch (how) {
	case DIGEST:
		c->check[1]++;
		break;
	case ALL_DIFFER:
		c->check[1]++;
		c->check[2]--;
		break;
	case REFUSED:
		c->committed[1] = 4;
		T.resync_rc = -EBUSY;
		break;
	case DAMAGED:
		c->check[1]++;
		c->damaged[1] = true;
		break;
	case NOT_MENDED:
		c->check[1]++;
		T.mend_rc = -ESTALE;
		break;
	case PAIR:
		c->check[0]++;
		c->damaged[1] = true;
		break;
	case PAIR_DAMAGED:
		c->check[0]++;
		c->damaged[0] = c->damaged[1] = true;
		break;
	case NONE_WHOLE:
		c->check[0]++;
		c->damaged[0] = c->damaged[1] = c->damaged[2] = true;
		break;
	case BUSY:
		c->pending[2] = 6;
		c->rises = true;
		break;
	case LACKS:
		c->committed[0] = 0;
		break;
	case VERSIONS:
		c->committed[2] = 4;
		break;
	case PASSES:
		c->pending[1] = 6;
		c->wrong_looks = 2;
		break;
	case PENDING:
		c->pending[1] = 6;
		break;
	case ORPHAN:
		add(T.files[0] - 1, 0, false)->chain = 1;	/* a directory */
		break;
	case NEW:
		(void)add(1000, 7, false);
		break;
	case MOVES:
		T.stale_lists = 7;
		break;
	case LEADER:
		T.image_fail = ERR_NOT_LEADER;
		T.image_fails = 2;
		break;
	case STALE_IMAGE:
		T.image_fail = -ESTALE;
		T.image_fails = 3;
		break;
	case NO_INODE:
		T.chunk_n = 0;
		ck_assert_int_eq(inode_del(T.h.t, T.files[1]), 0);
		break;
	case BAD_INODE:
		ck_assert_int_eq(table_put(T.h.t, key, key_ino(key, KEY_INODE,
		    T.files[1]), "?", 1), 0);
		break;
	case NO_INODE_DATA:
		ck_assert_int_eq(inode_del(T.h.t, T.files[1]), 0);
		break;
	case LOST:
		T.lost_replies = 2;
		/* fallthrough */
	case NLINK: {
		struct inode in;

		ck_assert_int_eq(inode_get(T.h.t, T.files[0], &in), 0);
		in.nlink = 5;
		ck_assert_int_eq(inode_put(T.h.t, &in), 0);
		break;
	}
	case MANY:
		for (unsigned i = 0; i < 100; i++) {
			struct msg_entry_rep rep;
			struct inode in;
			char name[8];

			snprintf(name, sizeof(name), "m%u", i);
			ck_assert_int_eq(h_create(&T.h, 1, name, 0644, 0, &rep), 0);
			ck_assert_int_eq(inode_get(T.h.t, rep.attr.ino, &in), 0);
			in.nlink = 5;
			ck_assert_int_eq(inode_put(T.h.t, &in), 0);
		}
		break;
	case CLEAN:
	case MISPLACED:
		break;
	}
	qsort(T.chunks, T.chunk_n, sizeof(T.chunks[0]), by_id);
}

/* ---- the check ---- */

static void
done(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(!T.done);
	T.done = true;
	T.rc = rc;
}

static bool
is_done(void *ctx)
{
	(void)ctx;
	return T.done;
}

static void
setup(void)
{
	struct msg_entry_rep rep;

	memset(&T, 0, sizeof(T));
	rig_open(&T.rig, RIG_SIM, 9);
	rig_serve(&T.rig, serve, NULL);
	net_server_handle(T.rig.server, 0x01, serve, NULL);
	net_server_handle(T.rig.server, 0x02, serve, NULL);
	h_open(&T.h, 1);
	T.h.cmd.layout.stripe = 2;
	ck_assert_int_eq(h_mkdir(&T.h, 1, "d", 0755, &rep), 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		ck_assert_int_eq(h_create(&T.h, 1, name, 0644, 0, &rep), 0);
		T.files[i] = rep.attr.ino;
	}
	T.version = 1;
	T.image = 77;
	T.resynced = REPLICAS;		/* none */
}

static void
teardown(void)
{
	free(T.out);
	h_close(&T.h);
	rig_close(&T.rig);
}

static void
random_bytes(void *ctx, void *out, size_t n)
{
	(void)ctx;
	memset(out, 7, n);
}

/* What the check is to do; it writes to T.out. */
static void
conf(struct check_conf *cc, enum may may, bool json)
{
	static struct role_env env;
	FILE *to = open_memstream(&T.out, &T.out_n);

	ck_assert_ptr_nonnull(to);
	env = (struct role_env){ .clock = T.rig.cclock, .rand = &T.rig.rand,
		.log = T.rig.log, .hub = T.rig.chub, .random = random_bytes };
	*cc = (struct check_conf){ .env = &env, .managers = &T.rig.addr, .manager_n = 1,
		.how = { .repair = may != LOOK, .discard = may == DISCARD, .json = json,
			.prefer_tail = may == TAIL }, .to = to };
}

static void
check_run(enum may may, bool json)
{
	struct check_conf cc;

	conf(&cc, may, json);
	if (may == FIRST)		/* of the chain that has the odd chunk */
		for (unsigned i = 0; i < T.chunk_n; i++)
			if (T.chunks[i].check[0] != T.chunks[i].check[2])
				cc.how.prefer = 10 * T.chunks[i].chain;
	ck_assert_int_eq(check_open(&T.check, &cc, done, NULL), 0);
	ck_assert(!T.done);
	ck_assert(sim_clock_run_until(T.rig.world, is_done, NULL, 300 * NS_PER_S));
	check_close(T.check);
	fclose(cc.to);
}

#endif
