/* SPDX-License-Identifier: MIT */
/* test_storage_disk.c - storage nodes whose disks fail in part: damage is found, repaired
 * from other replicas and never shown; a lost disk costs its own targets alone. */
#include "chunk/state.h"
#include "roles/storage_impl.h"
#include "tests/storage_rig.h"
#include "tests/suite.h"

#define LEN	30000u

static int
put_until_taken(uint32_t index, uint32_t off, const void *data, uint32_t len,
    uint64_t seq)
{
	int rc = 0;

	for (unsigned tries = 0; tries < 200; tries++) {
		struct msg_write m = write_msg(index, off, data, len, seq, 0);

		rc = call(m.target, MSG_write, &m, data, len, NULL, 0);
		if (rc == 0 || (err_next(rc) != ERR_NEXT_REFRESH &&
		    err_next(rc) != ERR_NEXT_RETRY && rc != ERR_CORRUPT))
			return rc;
		sim_clock_run(T.world, 20 * NS_PER_MS);
	}
	return rc;
}

static void
fill(uint8_t *b, uint32_t index)
{
	for (uint32_t i = 0; i < LEN; i++)
		b[i] = (uint8_t)(index * 17 + i * 7 + i / 256);
}

static void
put_all(void)
{
	uint8_t b[LEN];

	for (uint32_t i = 0; i < 8; i++) {
		fill(b, i);
		ck_assert_int_eq(put_until_taken(i, 0, b, LEN, 1 + i), 0);
	}
	sim_clock_run(T.world, 500 * NS_PER_MS);
}

/* Replica @k of chunk @index: 0 and the right bytes, or an error. */
static int
look(unsigned k, uint32_t index)
{
	uint8_t want[LEN], got[LEN];

	fill(want, index);
	memset(got, 0, sizeof(got));
	ck_assert_int_eq(get(k, index, 0, got, LEN), 0);
	if (R.item_rc != 0)
		return R.item_rc;
	ck_assert_uint_eq(R.len, LEN);
	ck_assert_int_eq(memcmp(got, want, LEN), 0);
	return 0;
}

/* The node, the disk and the place on it of byte @off of replica @k. */
static struct sim_box *
find(unsigned k, uint32_t index, uint32_t off, const char **path, uint64_t *at)
{
	const struct routing_chain *c = chain_of(index);
	struct host *h = &T.nodes[node_of(c->targets[k]) - 1];
	unsigned d = (c->targets[k] / 10 - 1) % T.loops;
	struct chunk_engine *e = storage_engine_at(h->storage, d);
	struct chunk_row row = { 0 };
	uint32_t block = off / CHUNK_BLOCK;

	*path = d == 0 ? "/disk0" : "/disk1";
	*at = 0;
	ck_assert_int_eq(chunk_index_get(&e->index, c->targets[k],
	    (struct chunk_id){ INO, index }, true, &row), 0);
	for (size_t i = 0; i < row.extents.n; i++)
		if (block >= row.extents.v[i].at &&
		    block < row.extents.v[i].at + row.extents.v[i].count)
			*at = (row.extents.v[i].disk + block - row.extents.v[i].at) *
			    CHUNK_BLOCK + off % CHUNK_BLOCK;
	ck_assert_uint_gt(*at, 0);
	chunk_row_fini(&row);
	return h->box;
}

static void
rot(unsigned k, uint32_t index, uint32_t off)
{
	const char *path;
	uint64_t at;
	struct sim_box *box = find(k, index, off, &path, &at);

	ck_assert_int_eq(sim_disk_flip(box, path, "data", at, off % 8), 0);
}

/* Head, middle and tail, every block: the reader that finds it is told so, the next one
 * gets the bytes. */
START_TEST(read_finds_rot)
{
	unsigned k = (unsigned)_i;

	cluster_open(21, 1);
	put_all();
	for (uint32_t off = 0; off < LEN; off += CHUNK_BLOCK - 1) {
		rot(k, 3, off);
		ck_assert_int_eq(look(k, 3), ERR_CORRUPT);
		for (unsigned i = 0; i < NODES; i++)
			if (i != k)
				ck_assert_int_eq(look(i, 3), 0);
		sim_clock_run(T.world, NS_PER_S);
		for (unsigned i = 0; i < NODES; i++)
			ck_assert_int_eq(look(i, 3), 0);
	}
	ck_assert_uint_eq(routing_serving_n(chain_of(3)), NODES);
	cluster_close();
}
END_TEST

/* Nobody reads, and still it is found; all replicas of a chunk may be hit, in places. */
START_TEST(scrub_finds_rot)
{
	cluster_open(22, 2);
	put_all();
	for (uint32_t i = 0; i < 8; i++)
		if (i != 5)
			rot(i % NODES, i, i * 3001);
	rot(0, 5, 100);
	rot(1, 5, 5000);	/* not 2: somebody must have the bytes */
	sim_clock_run(T.world, 40 * NS_PER_S);
	for (uint32_t i = 0; i < 8; i++)
		for (unsigned k = 0; k < NODES; k++)
			ck_assert_int_eq(look(k, i), 0);
	cluster_close();
}
END_TEST

/* Every replica has damage, each in another block. */
START_TEST(pieces_from_several)
{
	cluster_open(25, 1);
	put_all();
	rot(0, 5, 100);
	rot(1, 5, 5000);
	rot(2, 5, 9000);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 5), ERR_CORRUPT);
	sim_clock_run(T.world, 5 * NS_PER_S);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 5), 0);
	cluster_close();
}
END_TEST

/* And one block is damaged everywhere: the others are whole again, that one is never shown. */
START_TEST(pieces_but_one)
{
	uint8_t b[LEN];

	cluster_open(26, 1);
	put_all();
	rot(0, 5, 100);
	rot(1, 5, 5000);
	for (unsigned k = 0; k < NODES; k++) {
		rot(k, 5, 9000);
		ck_assert_int_eq(look(k, 5), ERR_CORRUPT);
	}
	sim_clock_run(T.world, 10 * NS_PER_S);
	for (unsigned k = 0; k < NODES; k++) {
		ck_assert_int_eq(look(k, 5), ERR_CORRUPT);
		ck_assert_int_eq(get(k, 5, 0, b, 8192), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_int_eq(get(k, 5, 8192, b, 4096), 0);
		ck_assert_int_eq(R.item_rc, ERR_CORRUPT);
	}
	cluster_close();
}
END_TEST

static void
lose(unsigned n)
{
	host_down(&T.nodes[n - 1], KILL);
	sim_disk_wipe(T.nodes[n - 1].box, "/disk0");
	format(&T.nodes[n - 1], "/disk0");
}

/* The disk of the one that helps loses what it is given, so a repair does not last: copies
 * pause ever longer, and go on when the disk is well again. */
START_TEST(spoilt_again)
{
	struct sim_disk_faults *x;
	struct host *helper;
	unsigned n;

	cluster_open(33, 1);
	put_all();
	n = node_of(chain_of(3)->targets[NODES - 1]);
	lose(n);
	wait_serving(NODES - 1);
	helper = &T.nodes[node_of(chain_of(3)->targets[NODES - 2]) - 1];
	rot(NODES - 2, 3, 9000);
	x = sim_disk_faults(helper->box, "/disk0");
	x->from = 1 << 20;
	x->to = UINT64_MAX;
	x->lost_ppm = 1000000;
	storage_up(&T.nodes[n - 1]);
	sim_clock_run(T.world, 10 * NS_PER_S);
	ck_assert_uint_lt(routing_serving_n(chain_of(3)), NODES);
	ck_assert_uint_gt(helper->storage->workers[0].stat.failed_reads, 4);
	ck_assert_uint_lt(helper->storage->workers[0].stat.failed_reads, 100);
	x->lost_ppm = 0;
	wait_serving(NODES);
	for (unsigned k = 0; k < NODES; k++)
		for (uint32_t i = 0; i < 8; i++)
			ck_assert_int_eq(look(k, i), 0);
	cluster_close();
}
END_TEST

/* The only replica that serves has damage (a block that reads wrong, or that the disk does not
 * read): the others are brought back all the same, with the damage.  It is never shown, it
 * stands in nobody's way, and a write over it ends it. */
START_TEST(damaged_and_alone)
{
	unsigned left, a, b;
	struct sim_disk_faults *x;
	struct chunk_damage d;
	struct sim_box *box;
	const char *path;
	uint8_t buf[LEN];
	uint64_t at;

	cluster_open(27 + (uint64_t)_i, 1);
	put_all();
	left = node_of(chain_of(0)->targets[(unsigned)_i % NODES]);
	a = left % NODES + 1;
	b = a % NODES + 1;
	lose(a);
	lose(b);
	wait_serving(1);
	if (_i < 3) {
		rot(0, 3, 9000);
	} else {
		box = find(0, 3, 9000, &path, &at);
		x = sim_disk_faults(box, path);
		x->from = at;
		x->to = at + 1;
		x->read_eio_ppm = 1000000;
	}
	ck_assert_int_eq(look(0, 3), ERR_CORRUPT);
	storage_up(&T.nodes[a - 1]);
	/* Writes to it go on while it is copied. */
	fill(buf, 3);
	ck_assert_int_eq(put_until_taken(3, 0, buf, 4096, 99), 0);
	storage_up(&T.nodes[b - 1]);
	wait_serving(NODES);
	for (unsigned k = 0; k < NODES; k++) {
		for (uint32_t i = 0; i < 8; i++)
			ck_assert_int_eq(look(k, i), i == 3 ? ERR_CORRUPT : 0);
		ck_assert_int_eq(get(k, 3, 12288, buf, LEN - 12288), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_int_eq(chunk_engine_next_damaged(storage_engine_at(
		    T.nodes[k].storage, 0), 0, (struct chunk_id){ 0 }, false, &d), 0);
		ck_assert_uint_eq(d.id.index, 3);
		if (_i < 3)
			ck_assert_uint_eq(d.block, 2);
		ck_assert_int_eq(get(k, 3, 0, buf, 8192), 0);
		ck_assert_int_eq(R.item_rc, 0);
	}
	fill(buf, 3);
	ck_assert_int_eq(put_until_taken(3, 8192, buf + 8192, 4096, 100), 0);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 3), 0);
	sim_clock_run(T.world, 90 * NS_PER_S);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(chunk_engine_next_damaged(storage_engine_at(
		    T.nodes[k].storage, 0), 0, (struct chunk_id){ 0 }, false, &d),
		    -ENOENT);
	cluster_close();
}
END_TEST

/* A write over half a block needs the other half: it waits for the repair. */
START_TEST(write_over_rot)
{
	uint8_t b[LEN], want[LEN];

	cluster_open(23, 1);
	put_all();
	rot((unsigned)_i, 2, 4096 + 10);
	memset(b, 'w', sizeof(b));
	ck_assert_int_eq(put_until_taken(2, 5000, b, 100, 77), 0);
	fill(want, 2);
	memset(want + 5000, 'w', 100);
	sim_clock_run(T.world, 2 * NS_PER_S);
	for (unsigned k = 0; k < NODES; k++) {
		ck_assert_int_eq(get(k, 2, 0, b, LEN), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_int_eq(memcmp(b, want, LEN), 0);
	}
	cluster_close();
}
END_TEST

/* Blocks that cannot be read stay so until they are written elsewhere. */
START_TEST(unreadable)
{
	const char *path;
	struct sim_disk_faults *x;
	struct sim_box *box;
	uint64_t at;

	cluster_open(24, 1);
	put_all();
	box = find((unsigned)_i, 4, 9000, &path, &at);
	x = sim_disk_faults(box, path);
	x->from = at;
	x->to = at + 1;
	x->read_eio_ppm = 1000000;
	ck_assert_int_eq(look((unsigned)_i, 4), ERR_CORRUPT);
	sim_clock_run(T.world, 2 * NS_PER_S);
	for (uint32_t i = 0; i < 8; i++)
		for (unsigned k = 0; k < NODES; k++)
			ck_assert_int_eq(look(k, i), 0);
	ck_assert_uint_eq(routing_serving_n(chain_of(4)), NODES);
	cluster_close();
}
END_TEST

/* A node may stop, in good order or not, whatever it is repairing. */
START_TEST(ends_meanwhile)
{
	struct host *h = &T.nodes[0];

	cluster_open(30 + (uint64_t)_i, 2);
	put_all();
	for (uint32_t i = 0; i < 8; i++)
		for (unsigned k = 0; k < NODES; k++)
			if (node_of(chain_of(i)->targets[k]) == 1)
				rot(k, i, i * 3000);
	for (uint32_t i = 0; i < 8; i++)
		for (unsigned k = 0; k < NODES; k++)
			(void)look(k, i);
	sim_clock_run(T.world, rand_below(&T.rand, 120) * NS_PER_MS);
	if (_i % 2 == 0) {
		storage_stop(h->storage, role_stopped, h);
		sim_clock_run(T.world, 3 * NS_PER_S);
		ck_assert(h->stopped);
		host_down(h, CLEAN);
	} else
		host_down(h, _i % 4 == 1 ? KILL : POWER);
	sim_clock_run(T.world, 5 * NS_PER_S);
	storage_up(h);
	wait_serving(NODES);
	sim_clock_run(T.world, 40 * NS_PER_S);
	for (uint32_t i = 0; i < 8; i++)
		for (unsigned k = 0; k < NODES; k++)
			ck_assert_int_eq(look(k, i), 0);
	cluster_close();
}
END_TEST

/* A disk that is lost: the chains on it go on without it, the node's other disk stays. */
static const struct {
	const char *what;
	bool gone, dead, table;
} losses[] = {
	{ "unmounted",		true, false, false },
	{ "device dead",	false, true, true },
	{ "data dead",		false, true, false },
	{ "index dead",		false, false, true },
};

START_TEST(disk_is_lost)
{
	struct sim_disk_faults *x;
	uint8_t b[LEN];

	cluster_open(25, 2);
	put_all();
	x = sim_disk_faults(T.nodes[1].box, "/disk0");
	x->gone = losses[_i].gone;
	x->dead = losses[_i].dead;
	x->table.dead = losses[_i].table;
	/* Reads and writes alone would notice; so does the disk by itself, in time. */
	if (losses[_i].gone || losses[_i].dead) {
		sim_clock_run(T.world, 12 * NS_PER_S);
		ck_assert_msg(T.m.nodes[2].failed[0], "%s", losses[_i].what);
	}
	for (uint32_t i = 0; i < 8; i++) {
		fill(b, i);
		ck_assert_int_eq(put_until_taken(i, 0, b, LEN, 100 + i), 0);
	}
	sim_clock_run(T.world, 2 * NS_PER_S);
	ck_assert(T.m.nodes[2].failed[0] && !T.m.nodes[2].failed[1]);
	for (uint32_t i = 0; i < 8; i++) {
		const struct routing_chain *c = chain_of(i);

		ck_assert_uint_eq(routing_serving_n(c), i % 2 == 0 ? NODES - 1 : NODES);
		for (unsigned k = 0; k < routing_serving_n(c); k++)
			ck_assert_int_eq(look(k, i), 0);
	}
	cluster_close();
}
END_TEST

/* What is found at start: a disk that does not open costs its own targets, the node goes on
 * with the other; with none of them it says so and ends. */
static const struct {
	const char *what, *file;	/* NULL: the directory is not there */
	uint64_t at;
} broken[] = {
	{ "no directory",	NULL, 0 },
	{ "both labels damaged", "data", 100 },
};

START_TEST(does_not_open)
{
	bool all = _i % 2 != 0;
	unsigned row = (unsigned)_i / 2;
	struct host *h;

	cluster_open(26, 2);
	put_all();
	h = &T.nodes[1];
	host_down(h, KILL);
	wait_serving(NODES - 1);
	for (unsigned d = 0; d < 1 + (unsigned)all; d++) {
		const char *path = d == 0 ? "/disk0" : "/disk1";

		if (broken[row].file == NULL) {
			sim_disk_wipe(h->box, path);
			continue;
		}
		for (unsigned k = 0; k < 2; k++)
			ck_assert_int_eq(sim_disk_flip(h->box, path, broken[row].file,
			    broken[row].at + k * 4096, 0), 0);
	}
	T.errors = 0;
	storage_up(h);
	if (all) {
		ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
		ck_assert_msg(h->rc != 0, "%s", broken[row].what);
		ck_assert_uint_ge(T.errors, 2);
		ck_assert(!T.m.nodes[2].up);
	} else {
		ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
		ck_assert_int_eq(h->rc, 0);
		ck_assert_uint_ge(T.errors, 1);	/* the disk, by its name */
		sim_clock_run(T.world, 5 * NS_PER_S);
		ck_assert(T.m.nodes[2].failed[0] && !T.m.nodes[2].failed[1]);
	}
	for (uint32_t i = 0; i < 8; i++) {
		const struct routing_chain *c = chain_of(i);

		ck_assert_uint_eq(routing_serving_n(c), i % 2 == 0 || all ? NODES - 1 :
		    NODES);
		for (unsigned k = 0; k < routing_serving_n(c); k++)
			ck_assert_int_eq(look(k, i), 0);
	}
	cluster_close();
}
END_TEST

/* ---- a peer that gives what nobody asked for ---- */

static uint8_t other[LEN];

static void one_more(struct msg_fetch_rep *r) { r->len++; }
static void far_more(struct msg_fetch_rep *r) { r->len = UINT32_MAX; }
static void one_less(struct msg_fetch_rep *r) { r->len--; }
static void another(struct msg_fetch_rep *r) { r->version++; }
static void wrong_sum(struct msg_fetch_rep *r) { r->crc++; }
static void small(struct msg_fetch_rep *r) { r->chunk_shift = 1; }
static void large(struct msg_fetch_rep *r) { r->chunk_shift = 99; }

static const struct {
	const char *what;
	void (*change)(struct msg_fetch_rep *r);
} lies[] = {
	{ "a byte more than came", one_more },
	{ "far more than there is room", far_more },
	{ "a byte less", one_less },
	{ "another version", another },
	{ "a wrong checksum", wrong_sum },
	{ "chunks too small", small },
	{ "chunks too large", large },
};

static unsigned lied;

static void
was_sent(void *arg)
{
	(void)arg;
}

static void
lie(void *ctx, struct net_req *req)
{
	const struct msg_fetch *m = req->msg;
	struct msg_fetch_rep rep = { .version = m->version, .chunk_shift = SHIFT,
	    .len = LEN, .crc = crc32c(0, other, LEN) };
	struct net_piece piece = { other, LEN, 0 };

	if (req->method != MSG_fetch) {
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		return;
	}
	lied++;
	lies[*(int *)ctx].change(&rep);
	net_reply(req, 0, &rep, &piece, 1, was_sent, NULL);
}

/* A repair takes the bytes of that version, all of them and nothing else; the next replica
 * has them. */
START_TEST(wrong_bytes_are_not_taken)
{
	struct net_server_conf sc = { .conns_max = 64, .reqs_max = 256,
	    .conn_reqs_max = 64, .hello_ms = 2000, .payload_ms = 2000 };
	struct net_server *server;
	struct host *h;

	memset(other, 'x', sizeof(other));
	lied = 0;
	cluster_open(27, 1);
	put_all();
	T.m.by_hand = true;
	h = &T.nodes[node_of(chain_of(4)->targets[1]) - 1];
	sc.listen = (struct net_addr){ .kind = NET_ADDR_SIM, .id = h->id };
	host_down(h, KILL);
	host_up(h, "liar", 1);
	sc.hub = h->hubs[0];
	ck_assert_int_eq(net_server_open(&server, &sc), 0);
	net_server_handle(server, 0x03, lie, &_i);
	rot(0, 4, 100);
	ck_assert_int_eq(look(0, 4), ERR_CORRUPT);
	sim_clock_run(T.world, 2 * NS_PER_S);
	ck_assert_msg(lied > 0, "%s: nobody has asked", lies[_i].what);
	ck_assert_msg(look(0, 4) == 0, "%s: not repaired", lies[_i].what);
	net_server_close(server);
	cluster_close();
}
END_TEST

/* Where the file system below one replica is full, new data is refused by all of them: none
 * keeps a version that another could not store. */
START_TEST(full_somewhere)
{
	struct sim_disk_faults *x;
	struct host *h;
	uint8_t b[LEN];

	cluster_open(29, 1);
	put_all();
	h = &T.nodes[node_of(chain_of(8)->targets[_i]) - 1];
	x = sim_disk_faults(h->box, "/disk0");
	x->full = true;
	sim_clock_run(T.world, 3 * NS_PER_S);
	fill(b, 8);
	ck_assert_int_eq(put(8, 0, b, LEN, 100, 0), -ENOSPC);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 8), -ENOENT);
	x->full = false;
	sim_clock_run(T.world, 3 * NS_PER_S);
	ck_assert_int_eq(put_until_taken(8, 0, b, LEN, 101), 0);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 8), 0);
	cluster_close();
}
END_TEST

/* The head cannot store what the others have: a cut does not pass it over. */
START_TEST(cut_behind_the_head)
{
	struct sim_disk_faults *x;
	struct host *h;
	uint8_t b[LEN];

	cluster_open(31, 1);
	put_all();
	h = &T.nodes[node_of(chain_of(8)->targets[0]) - 1];
	x = sim_disk_faults(h->box, "/disk0");
	x->full = true;			/* which it does not know yet */
	fill(b, 8);
	ck_assert_int_ne(put(8, 0, b, LEN, 100, 0), 0);
	ck_assert_int_eq(cut(8, 8, 0, 1, 10), ERR_BUSY);
	x->full = false;
	sim_clock_run(T.world, 5 * NS_PER_S);
	ck_assert_int_eq(cut(8, 8, 0, 1, 10), 0);
	sim_clock_run(T.world, 5 * NS_PER_S);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_int_eq(look(k, 8), -ENOENT);
	cluster_close();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("disks");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, read_finds_rot, 0, NODES);
	tcase_add_test(tc, scrub_finds_rot);
	tcase_add_test(tc, pieces_from_several);
	tcase_add_test(tc, pieces_but_one);
	tcase_add_test(tc, spoilt_again);
	tcase_add_loop_test(tc, damaged_and_alone, 0, NODES + 1);
	tcase_add_test(tc, cut_behind_the_head);
	tcase_add_loop_test(tc, full_somewhere, 0, NODES);
	tcase_add_loop_test(tc, write_over_rot, 0, NODES);
	tcase_add_loop_test(tc, unreadable, 0, NODES);
	tcase_add_loop_test(tc, ends_meanwhile, 0, 12);
	tcase_add_loop_test(tc, disk_is_lost, 0, sizeof(losses) / sizeof(losses[0]));
	tcase_add_loop_test(tc, does_not_open, 0,
	    2 * sizeof(broken) / sizeof(broken[0]));
	tcase_add_loop_test(tc, wrong_bytes_are_not_taken, 0,
	    sizeof(lies) / sizeof(lies[0]));
	return suite_run("storage_disk", tc);
}
