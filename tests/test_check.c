/* SPDX-License-Identifier: MIT */
/* test_check.c - fsd check against servers that answer by script: one address is manager,
 * metadata and all replicas of two chains; the tree in the image is a real one. */
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
	unsigned	images, cuts;
	target_id	resynced;
	int		resync_rc;
	uint64_t	image;
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

	if (q->image != 0 && T.image_fails > 0) {
		T.image_fails--;
		T.image++;
		net_reply(req, T.image_fail, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (q->image == 0)
		T.images++;
	else
		ck_assert_uint_eq(q->image, T.image);
	rep.image = T.image;
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
	if (q->chain_version != T.version)
		rc = ERR_STALE_CHAIN;
	for (unsigned i = 0; i < T.chunk_n; i++) {
		struct chunk *c = &T.chunks[i];

		if (c->chain != q->chain || (!q->start &&
		    chunk_id_cmp(c->id, q->after) <= 0) ||
		    (c->committed[k] == 0 && c->pending[k] == 0))
			continue;
		if (n++ == PAGE || n > q->max)
			break;
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
	for (unsigned i = 0; i < T.chunk_n; i++)
		if (T.chunks[i].chain == q->chain && T.chunks[i].id.ino == q->ino)
			memset(T.chunks[i].committed, 0,
			    sizeof(T.chunks[i].committed));
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
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

enum what { CLEAN, DIGEST, ALL_DIFFER, REFUSED, LACKS, VERSIONS, PASSES, PENDING, ORPHAN, MISPLACED, NEW,
	MOVES, LEADER, STALE_IMAGE, NO_INODE, BAD_INODE };

static const struct {
	const char *what;
	enum what   how;
	bool	    repair;
	int	    rc;
	unsigned    faults;
	const char *says;		/* in the output */
} cases[] = {
	{ "all is well", CLEAN, false, 0, 0, " 0 faults, 0 mended" },
	{ "a replica has other bytes", DIGEST, false, -EUCLEAN, 1, "replicas differ" },
	{ "it is mended", DIGEST, true, 0, 1, " 1 mended" },
	{ "a replica that lacks one is mended", LACKS, true, 0, 1, " 1 mended" },
	{ "nobody knows who is right", ALL_DIFFER, true, -EUCLEAN, 1, " 0 mended" },
	{ "too few others serve", REFUSED, true, -EUCLEAN, 1, "up to date again: " },
	{ "a replica lacks a chunk", LACKS, false, -EUCLEAN, 1, "replicas differ" },
	{ "a replica has another version", VERSIONS, false, -EUCLEAN, 1,
	  "target 12: 4/0" },
	{ "a write was under way", PASSES, false, 0, 0, " 0 faults" },
	{ "a version is left", PENDING, false, -EUCLEAN, 1, "unsettled version" },
	{ "chunks of no inode", ORPHAN, false, -EUCLEAN, 1, "no such inode" },
	{ "chunks of no inode, mended", ORPHAN, true, 0, 1, " 1 mended" },
	{ "a chunk on a wrong chain", MISPLACED, false, -EUCLEAN, 1,
	  "on a wrong chain" },
	{ "made after the image", NEW, false, 0, 0, " 0 faults" },
	{ "chains move meanwhile", MOVES, false, 0, 0, " 0 faults" },
	{ "another leader in the middle", LEADER, false, 0, 0, " 0 faults" },
	{ "the image is gone", STALE_IMAGE, false, 0, 0, " 0 faults" },
	{ "an entry without inode", NO_INODE, false, -EUCLEAN, 0, "metadata " },
	{ "a damaged inode keeps its chunks", BAD_INODE, true, -EUCLEAN, 0,
	  "inode row" },
};

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
		c->check[1]++;
		T.resync_rc = -EBUSY;
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
}

static void
teardown(void)
{
	free(T.out);
	h_close(&T.h);
	rig_close(&T.rig);
}

static void
check_run(bool repair, bool json)
{
	struct role_env env = { .clock = T.rig.cclock, .rand = &T.rig.rand,
	    .log = T.rig.log, .hub = T.rig.chub };
	FILE *to = open_memstream(&T.out, &T.out_n);
	struct check_conf cc = { .env = &env, .managers = &T.rig.addr, .manager_n = 1,
	    .repair = repair, .json = json, .to = to };

	ck_assert_int_eq(check_open(&T.check, &cc, done, NULL), 0);
	ck_assert(!T.done);
	ck_assert(sim_clock_run_until(T.rig.world, is_done, NULL, 300 * NS_PER_S));
	check_close(T.check);
	fclose(to);
}

START_TEST(finds)
{
	unsigned faults = 0;

	arrange(cases[_i].how);
	check_run(cases[_i].repair, false);
	ck_assert_msg(T.rc == cases[_i].rc, "%s: %s\n%s", cases[_i].what,
	    err_name(T.rc), T.out);
	ck_assert_msg(strstr(T.out, cases[_i].says) != NULL, "%s:\n%s",
	    cases[_i].what, T.out);
	for (const char *p = T.out; (p = strstr(p, "fault: chain")) != NULL; p++)
		faults++;
	ck_assert_msg(faults == cases[_i].faults, "%s:\n%s", cases[_i].what, T.out);
	ck_assert_uint_eq(T.cuts, cases[_i].how == ORPHAN && cases[_i].repair);
	if (cases[_i].repair && cases[_i].how == DIGEST)
		ck_assert_uint_eq(T.resynced, 1);
	else if (cases[_i].how != REFUSED)
		ck_assert_uint_eq(T.resynced, 0);	/* or the first one */
	ck_assert_uint_eq(T.images, 1 + (cases[_i].how == LEADER ||
	    cases[_i].how == STALE_IMAGE ? T.image - 77 : 0));
}
END_TEST

START_TEST(as_json)
{
	arrange(DIGEST);
	check_run(false, true);
	ck_assert_msg(strncmp(T.out, "{\"fault\": \"chain ", 17) == 0, "%s", T.out);
	ck_assert_ptr_nonnull(strstr(T.out, "{\"inodes\": 5, \"chunks\": 27, "
	    "\"faults\": 1, \"mended\": 0}\n"));
}
END_TEST

/* Closing at any time. */
START_TEST(closed)
{
	struct role_env env = { .clock = T.rig.cclock, .rand = &T.rig.rand,
	    .log = T.rig.log, .hub = T.rig.chub };
	struct check_conf cc = { .env = &env, .managers = &T.rig.addr, .manager_n = 1,
	    .to = stderr };

	arrange(CLEAN);
	for (unsigned steps = 0; !T.done; steps++) {
		ck_assert_int_eq(check_open(&T.check, &cc, done, NULL), 0);
		for (unsigned i = 0; i < steps && !T.done; i++)
			sim_clock_step(T.rig.world);
		check_close(T.check);
		if (!T.done) {
			sim_clock_run(T.rig.world, NS_PER_S / 10);
			ck_assert(!T.done);
		}
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("check");
	TCase *tc = tcase_create("scripted");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, finds, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_test(tc, as_json);
	tcase_add_test(tc, closed);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
