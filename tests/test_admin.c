/* SPDX-License-Identifier: MIT */
/* test_admin.c - fsd admin against a manager that answers by script: what is printed, as
 * text and as JSON, what is asked for, and what becomes of wrong arguments. */
#include "roles/admin.h"
#include "tests/net_rig.h"
#include "tests/suite.h"

static struct {
	struct rig rig;
	struct admin *admin;
	bool	 done;
	int	 rc;			/* done's */
	/* the manager */
	int	 fail;			/* what it answers instead, */
	unsigned fails;			/* so often */
	unsigned asked;
	uint16_t changed;		/* method, and its request */
	struct msg_chain_accept accept;
	struct msg_chain_resync resync;
	struct msg_disk_replace replace;
	struct msg_manager_change change;
	char	 addr[64], with[64];
	uint32_t page;			/* rows of a list in one answer; 0: all */
	bool	 stuck;			/* the first page is all that comes */
	unsigned pages;
	char	*out;
	size_t	 out_n;
} T;

#define LIST(...) { (void *)(uintptr_t)(__VA_ARGS__), \
	sizeof(__VA_ARGS__) / sizeof((__VA_ARGS__)[0]) }

static struct uid128
uid(uint8_t n)
{
	struct uid128 u = { { 0 } };

	memset(u.b, n, sizeof(u.b));
	return u;
}

/* Of so many rows one page goes; how many are left. */
static uint32_t
keep_page(uint32_t *n)
{
	uint32_t all = *n;

	if (T.page > 0 && *n > T.page)
		*n = T.page;
	return all - *n;
}

static void
routing_rep(struct net_req *req)
{
	struct msg_str addrs[] = { msg_str("10.0.0.1:7000"), msg_str("10.0.0.1:7001") };
	struct msg_rt_node nodes[] = {
		{ .id = 1, .name = msg_str("box1"), .roles = NODE_STORAGE | NODE_MANAGER,
		    .state = NODE_UP, .addrs = { addrs, 2 } },
		{ .id = 2, .name = msg_str("b\"x\n2"), .roles = NODE_METADATA,
		    .state = NODE_DOWN, .addrs = { addrs, 1 } },
	};
	struct msg_rt_target targets[] = {
		{ .id = 1, .node = 1, .loop = 1, .disk = uid(0x11), .chain = 1 },
		{ .id = 9, .node = 2, .disk = uid(0x22) },
	};
	uint32_t three[] = { 1, 2, 3 };
	uint32_t states[][3] = {
		{ TARGET_SERVING, TARGET_SERVING, TARGET_SERVING },
		{ TARGET_SERVING, TARGET_SYNCING, TARGET_WAITING },
		{ TARGET_SERVING, TARGET_SERVING, TARGET_OFFLINE },
		{ TARGET_LASTSRV, TARGET_WAITING, TARGET_OFFLINE },
		{ TARGET_WAITING, TARGET_WAITING, TARGET_OFFLINE },
	};
	struct msg_rt_chain chains[5];
	struct msg_rt_table tables[] = { { .id = 1, .version = 2,
		.chains = { three, 3 } } };
	struct msg_routing_rep rep = { .version = 7, .nodes = LIST(nodes),
		.targets = LIST(targets), .chains = LIST(chains),
		.tables = LIST(tables) };

	for (uint32_t i = 0; i < 5; i++)
		chains[i] = (struct msg_rt_chain){ .id = i + 1, .version = 10 + i,
			.state = i < 3 ? CHAIN_SERVING : CHAIN_RECOVERING,
			.targets = { three, 3 }, .states = { states[i], 3 },
			.preferred = { three, 3 } };
	/* in two pieces; one chain changes meanwhile */
	if (((const struct msg_routing *)req->msg)->have == 0) {
		rep.version = 6;
		rep.chains.n = 3;
		chains[1].version = 1;
	} else {
		rep.nodes.n = rep.targets.n = rep.tables.n = 0;
		rep.chains = (msg_t_list_rt_chain){ chains + 1, 4 };
	}
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static void
status_rep(struct net_req *req)
{
	struct msg_disk_info disks[] = {
		{ .disk = uid(0x11), .loop = 1, .path = msg_str("/d/1"),
		    .capacity = 3ull << 40, .used = 1536, .targets = 4 },
		{ .disk = uid(0x22), .path = msg_str("/d/2"), .failed = 1 },
		{ .disk = uid(0x33), .path = msg_str(""), .failed = 2 },
		{ .disk = uid(0x44), .path = msg_str("/d/4"), .failed = 3 },
		{ .disk = uid(0x55), .path = msg_str("/d/5"), .failed = 77 },
	};
	struct msg_node_status nodes[] = {
		{ .node = 1, .seen_ms = 1500, .release = msg_str("1.2"),
		    .disks = LIST(disks) },
		{ .node = 2, .seen_ms = UINT64_MAX },
	};
	const struct msg_status *q = req->msg;
	struct msg_sync_status syncs[] = {
		{ .chain = 2, .target = 2, .done = 50, .total = 200, .copied = 5,
		    .bytes = 10 << 20, .ms = 2000, .rate = 5 << 20, .left_ms = 6000 },
		{ .chain = 2, .target = 3, .rc = -EIO, .tries = 2, .again_ms = 100 },
		{ .chain = 3, .target = 3, .rc = -ENOSPC, .tries = 4,
		    .again_ms = 7600 },
	};
	struct msg_status_rep rep = { .nodes = LIST(nodes), .syncs = LIST(syncs),
		.total_bytes = 1 << 20, .used_bytes = 1 << 19 };

	T.pages++;
	while (!T.stuck && rep.nodes.n > 0 && rep.nodes.v[0].node <= q->after_node)
		rep.nodes.v++, rep.nodes.n--;
	while (!T.stuck && rep.syncs.n > 0 && (rep.syncs.v[0].chain < q->after_chain ||
	    (rep.syncs.v[0].chain == q->after_chain &&
	    rep.syncs.v[0].target <= q->after_target)))
		rep.syncs.v++, rep.syncs.n--;
	rep.nodes_left = keep_page(&rep.nodes.n);
	rep.syncs_left = keep_page(&rep.syncs.n);
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static void
managers_rep(struct net_req *req)
{
	struct msg_manager_row rows[] = {
		{ 0xab, msg_str("10.0.0.1:7000"), 1, 1, 1 },
		{ 0xcd, msg_str("10.0.0.2:7000"), 1, 0, 0 },
		{ 0xef, msg_str("10.0.0.3:7000"), 0, 0, 1 },
	};
	struct msg_managers_rep rep = { LIST(rows) };

	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static void
clients_rep(struct net_req *req)
{
	const struct msg_clients *q = req->msg;
	struct msg_client_row rows[] = {
		{ .client = uid(0x66), .host = msg_str("g"), .mount = msg_str("/3fs"),
		    .pid = 9, .release = msg_str("1.2"), .since_ms = 50000,
		    .seen_ms = 100 },
		{ .client = uid(0x77), .host = msg_str("h"), .mount = msg_str("/3fs"),
		    .pid = 12, .release = msg_str("1.2"), .since_ms = 61000,
		    .seen_ms = 200 },
	};
	struct msg_clients_rep rep = { LIST(rows), .left = 0 };

	T.pages++;
	while (!T.stuck && rep.clients.n > 0 && memcmp(&rep.clients.v[0].client,
	    &q->after, sizeof(q->after)) <= 0)
		rep.clients.v++, rep.clients.n--;
	rep.left = keep_page(&rep.clients.n);
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static void
serve(void *ctx, struct net_req *req)
{
	(void)ctx;
	T.asked++;
	if (T.fails > 0) {
		T.fails--;
		net_reply(req, T.fail, NULL, NULL, 0, NULL, NULL);
		return;
	}
	switch (req->method) {
	case MSG_routing:
		routing_rep(req);
		return;
	case MSG_status:
		status_rep(req);
		return;
	case MSG_managers:
		managers_rep(req);
		return;
	case MSG_clients:
		clients_rep(req);
		return;
	case MSG_chain_accept:
		T.accept = *(const struct msg_chain_accept *)req->msg;
		break;
	case MSG_chain_resync:
		T.resync = *(const struct msg_chain_resync *)req->msg;
		break;
	case MSG_disk_replace:
		T.replace = *(const struct msg_disk_replace *)req->msg;
		break;
	case MSG_manager_change:
		T.change = *(const struct msg_manager_change *)req->msg;
		snprintf(T.addr, sizeof(T.addr), "%.*s", (int)T.change.addr.n,
		    T.change.addr.p);
		snprintf(T.with, sizeof(T.with), "%.*s", (int)T.change.with.n,
		    T.change.with.p);
		break;
	default:
		ck_abort_msg("method %x", req->method);
	}
	T.changed = req->method;
	net_reply(req, 0, NULL, NULL, 0, NULL, NULL);
}

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
	memset(&T, 0, sizeof(T));
	rig_open(&T.rig, RIG_SIM, 3);
	rig_serve(&T.rig, serve, NULL);
	net_server_handle(T.rig.server, 0x01, serve, NULL);
}

static void
teardown(void)
{
	free(T.out);
	rig_close(&T.rig);
}

/* A command as it is typed: what it ends with, or why it did not begin. */
static int
run(const char *line, bool json)
{
	struct role_env env = { .clock = T.rig.cclock, .rand = &T.rig.rand,
	    .log = T.rig.log, .hub = T.rig.chub };
	const char *words[ADMIN_WORDS_MAX];
	char copy[256], *save = NULL;
	unsigned n = 0;
	FILE *to;
	int rc;

	free(T.out);
	T.out = NULL;
	T.done = false;
	T.asked = 0;
	T.changed = 0;
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *w = strtok_r(copy, " ", &save); w != NULL;
	    w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	to = open_memstream(&T.out, &T.out_n);
	rc = admin_open(&T.admin, &env, &T.rig.addr, 1, words, n, json, to, done, NULL);
	if (rc == 0) {
		ck_assert(!T.done);
		ck_assert(sim_clock_run_until(T.rig.world, is_done, NULL,
		    60 * NS_PER_S));
		rc = T.rc;
	}
	admin_close(T.admin);
	T.admin = NULL;
	fclose(to);
	return rc;
}

static const struct {
	const char *line;
	bool json;
	const char *out;
} shows[] = {
	{ "show nodes", false,
	  "node  name   roles            state  seen   disks  release  addresses\n"
	  "1     box1   manager,storage  up     1.5 s  5      1.2      "
	  "10.0.0.1:7000,10.0.0.1:7001\n"
	  "2     b\"x?2  metadata         down   never  0      -        "
	  "10.0.0.1:7000\n" },
	{ "show nodes", true,
	  "[\n {\"node\": 1, \"name\": \"box1\", \"roles\": \"manager,storage\", "
	  "\"state\": \"up\", \"seen\": 1500, \"disks\": 5, \"release\": \"1.2\", "
	  "\"addresses\": \"10.0.0.1:7000,10.0.0.1:7001\"},\n"
	  " {\"node\": 2, \"name\": \"b\\\"x?2\", \"roles\": \"metadata\", "
	  "\"state\": \"down\", \"seen\": \"never\", \"disks\": 0, \"release\": \"-\", "
	  "\"addresses\": \"10.0.0.1:7000\"}\n]\n" },
	{ "show disks", false,
	  "disk                              node  loop  state     used     capacity  "
	  "targets  damaged  path\n"
	  "11111111111111111111111111111111  1     1     ok        1.5 KiB  3.0 TiB   "
	  "4        0        /d/1\n"
	  "22222222222222222222222222222222  1     0     failed    0 B      0 B       "
	  "0        0        /d/2\n"
	  "33333333333333333333333333333333  1     0     gone      0 B      0 B       "
	  "0        0        -\n"
	  "44444444444444444444444444444444  1     0     replaced  0 B      0 B       "
	  "0        0        /d/4\n"
	  "55555555555555555555555555555555  1     0     ?         0 B      0 B       "
	  "0        0        /d/5\n" },
	{ "show targets", false,
	  "target  chain  state    node  loop  disk\n"
	  "1       1      serving  1     1     11111111111111111111111111111111\n"
	  "9       0      free     2     0     22222222222222222222222222222222\n" },
	{ "show chains", false,
	  "chain  version  state       replicas                       progress\n"
	  "1      10       serving     1=serving 2=serving 3=serving  -\n"
	  "2      11       syncing     1=serving 2=syncing 3=waiting  50/200 chunks, "
	  "5 copied, 10.0 MiB, 5.0 MiB/s, 6 s left\n"
	  "3      12       degraded    1=serving 2=serving 3=offline  3 failed 4 times: "
	  "No space left on device; again in 8 s\n"
	  "4      13       waits       1=lastsrv 2=waiting 3=offline  -\n"
	  "5      14       recovering  1=waiting 2=waiting 3=offline  -\n" },
	{ "show managers", false,
	  "address        member            state\n"
	  "10.0.0.1:7000  00000000000000ab  leads\n"
	  "10.0.0.2:7000  00000000000000cd  follows, is removed\n"
	  "10.0.0.3:7000  00000000000000ef  is brought up to date\n" },
	{ "show managers", true,
	  "[\n {\"address\": \"10.0.0.1:7000\", \"member\": \"00000000000000ab\", "
	  "\"state\": \"leads\"},\n"
	  " {\"address\": \"10.0.0.2:7000\", \"member\": \"00000000000000cd\", "
	  "\"state\": \"follows, is removed\"},\n"
	  " {\"address\": \"10.0.0.3:7000\", \"member\": \"00000000000000ef\", "
	  "\"state\": \"is brought up to date\"}\n]\n" },
	{ "show tables", false,
	  "table  version  chains\n1      2        1 2 3\n" },
	{ "show clients", false,
	  "client                            host  pid  mount  since   seen   release\n"
	  "77777777777777777777777777777777  h     12   /3fs   61.0 s  0.2 s  1.2\n"
	  "66666666666666666666666666666666  g     9    /3fs   50.0 s  0.1 s  1.2\n" },
	{ "show space", true,
	  "[\n {\"total\": 1048576, \"used\": 524288, \"free\": 524288}\n]\n" },
};

START_TEST(golden)
{
	ck_assert_int_eq(run(shows[_i].line, shows[_i].json), 0);
	ck_assert_str_eq(T.out, shows[_i].out);
}
END_TEST

/* Lists come in pages; what is shown is the same. */
START_TEST(paged)
{
	static const struct {
		const char *line;
		unsigned    pages;	/* of one row */
	} lists[] = {
		{ "show nodes", 3 }, { "show disks", 3 }, { "show chains", 3 },
		{ "show clients", 2 }, { "show space", 3 }, { "show tables", 0 },
	};

	for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		char *whole;

		T.page = 0;
		ck_assert_int_eq(run(lists[i].line, false), 0);
		whole = strdup(T.out);
		T.page = 1;
		T.pages = 0;
		ck_assert_int_eq(run(lists[i].line, false), 0);
		ck_assert_str_eq(T.out, whole);
		ck_assert_uint_eq(T.pages, lists[i].pages);
		free(whole);
	}
}
END_TEST

/* A manager that begins again and again. */
START_TEST(never_goes_on)
{
	T.page = 1;
	T.stuck = true;
	ck_assert_int_eq(run(_i == 0 ? "show nodes" : "show clients", false),
	    ERR_BAD_MESSAGE);
	ck_assert_uint_eq(T.pages, 2);
}
END_TEST

/* Refused before anything is asked. */
static const char *const wrong[] = {
	"", "show", "show chain", "shows chains", "show chains 1", "show counters a b",
	"chain accept-loss", "chain accept-loss 1", "chain accept-loss 1 2 3",
	"chain accept-loss 0 1", "chain accept-loss -1 1", "chain accept-loss 1 x",
	"chain accept-loss 1 4294967296", "chain accept-loss 1 2x",
	"chain accept-loss 99999999999999999999 1",
	"disk replace", "disk replace 11111111111111111111111111111111",
	"disk replace 11111111111111111111111111111111 22",
	"disk replace xx 11111111111111111111111111111111",
	"manager add", "manager add nowhere", "manager replace 10.0.0.1:1",
	"manager replace 10.0.0.1:1 x", "metadata add 0", "metadata replace 1",
};

START_TEST(wrong_arguments)
{
	ck_assert_msg(run(wrong[_i], false) == -EINVAL, "%s", wrong[_i]);
	ck_assert(!T.done);
	ck_assert_uint_eq(T.asked, 0);
	ck_assert_uint_eq(T.out_n, 0);
}
END_TEST

START_TEST(changes)
{
	struct uid128 a = uid(0x11), b = uid(0xab);

	ck_assert_int_eq(run("chain accept-loss 4 17", false), 0);
	ck_assert_uint_eq(T.changed, MSG_chain_accept);
	ck_assert_uint_eq(T.accept.chain, 4);
	ck_assert_uint_eq(T.accept.target, 17);
	ck_assert_int_eq(run("chain resync 5 18", false), 0);
	ck_assert_uint_eq(T.changed, MSG_chain_resync);
	ck_assert_uint_eq(T.resync.chain, 5);
	ck_assert_uint_eq(T.resync.version, 0);
	ck_assert_uint_eq(T.resync.target, 18);
	ck_assert_int_eq(run("disk replace 11111111111111111111111111111111 "
	    "abababababababababababababababab", false), 0);
	ck_assert_uint_eq(T.changed, MSG_disk_replace);
	ck_assert(uid128_eq(&T.replace.disk, &a) && uid128_eq(&T.replace.with, &b));
	ck_assert_int_eq(run("manager replace 10.0.0.1:1 10.0.0.2:2", false), 0);
	ck_assert_uint_eq(T.change.op, MANAGER_REPLACE);
	ck_assert_str_eq(T.addr, "10.0.0.1:1");
	ck_assert_str_eq(T.with, "10.0.0.2:2");
	ck_assert_int_eq(run("manager remove 10.0.0.1:1", false), 0);
	ck_assert_uint_eq(T.change.op, MANAGER_REMOVE);
	ck_assert_uint_eq(T.out_n, 0);
}
END_TEST

/* What the manager refuses is the end of it; what may pass is asked again for a while. */
static const struct {
	const char *what, *line;
	int	 fail;
	unsigned fails;
	int	 rc;
} refusals[] = {
	{ "unknown chain", "chain accept-loss 99 1", -ENOENT, 1, -ENOENT },
	{ "target not in chain", "chain accept-loss 1 99", -ENOENT, 1, -ENOENT },
	{ "it serves", "chain accept-loss 1 1", -EBUSY, 1, -EBUSY },
	{ "unknown disk", "disk replace 11111111111111111111111111111111 "
	  "22222222222222222222222222222222", -ENOENT, 1, -ENOENT },
	{ "no room on it", "disk replace 11111111111111111111111111111111 "
	  "22222222222222222222222222222222", -ENOSPC, 1, -ENOSPC },
	{ "no leader yet", "show chains", ERR_NOT_LEADER, 3, 0 },
	{ "busy", "chain accept-loss 1 2", ERR_BUSY, 2, 0 },
	{ "no leader for long", "show chains", ERR_NOT_LEADER, 1000, ERR_NOT_LEADER },
};

START_TEST(refused)
{
	T.fail = refusals[_i].fail;
	T.fails = refusals[_i].fails;
	ck_assert_msg(run(refusals[_i].line, false) == refusals[_i].rc, "%s",
	    refusals[_i].what);
	if (refusals[_i].rc != 0)
		ck_assert_uint_eq(T.out_n, 0);
}
END_TEST

/* Closing at any time. */
START_TEST(closed)
{
	static const char *const words[] = { "show", "chains" };
	struct role_env env = { .clock = T.rig.cclock, .rand = &T.rig.rand,
	    .log = T.rig.log, .hub = T.rig.chub };

	for (unsigned steps = 0; steps < 40; steps++) {
		T.done = false;
		ck_assert_int_eq(admin_open(&T.admin, &env, &T.rig.addr, 1, words, 2,
		    false, stdout, done, NULL), 0);
		for (unsigned i = 0; i < steps && T.asked < 2; i++)
			sim_clock_step(T.rig.world);
		admin_close(T.admin);
		sim_clock_run(T.rig.world, NS_PER_S / 10);
		ck_assert(!T.done);
		T.asked = 0;
	}
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *tc = tcase_create("commands");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, golden, 0, N(shows));
	tcase_add_test(tc, paged);
	tcase_add_loop_test(tc, never_goes_on, 0, 2);
	tcase_add_loop_test(tc, wrong_arguments, 0, N(wrong));
	tcase_add_test(tc, changes);
	tcase_add_loop_test(tc, refused, 0, N(refusals));
	tcase_add_test(tc, closed);
	return suite_run("admin", tc);
}
