/* SPDX-License-Identifier: MIT */
/* client_rig.h - a client among scripted services, and requests that can be waited for. */
#ifndef TESTS_CLIENT_RIG_H
#define TESTS_CLIENT_RIG_H

#include "tests/client_script.h"

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

static inline void
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

static inline struct client_file *
open_ino(ino_id ino, uint32_t flags)
{
	struct client_file *f = NULL;

	client_file_open(c, &reqs[0].op, op_done, NULL, ino, flags, &f);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	return f;
}

static uint8_t pattern[1 << 20];
static const uint8_t zeros[1 << 20];

static inline int
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
static inline void
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

static inline int
sync_file(struct client_file *f)
{
	client_fsync(f, &reqs[3].op, op_done);
	return wait_for(&reqs[3]);
}

static inline uint64_t
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
	lend_ns = 0;
	memset(&metas, 0, sizeof(metas));
	memset(cut, 0, sizeof(cut));
	memset(dead, 0, sizeof(dead));
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

/* ---- late reads ---- */

#define STOPPED	(~0ull >> 1)

#endif
