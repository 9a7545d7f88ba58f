/* SPDX-License-Identifier: MIT */
/* bench_raw.c - the limits: io_uring alone on a file of its own, and a bare stream between two
 * threads of this process.  Both block. */
#include "roles/bench_raw.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chunk/disk_uring.h"
#include "conf/rand.h"
#include "net/loop.h"
#include "roles/bench_bare.h"

/* ---- a disk ---- */

#define MEASURE_NS	(3 * NS_PER_S / 2)
#define IO		(1u << 20)
#define SMALL		4096u
#define RAW_BYTES	(1ull << 30)
#define RAW_DEPTH	32u

struct raw_run;

struct raw_io {
	struct raw_run	*run;
	struct disk_req	 req;
	struct iovec	 iov;
};

struct raw_run {
	struct clock	*clock;
	struct disk	*disk;
	struct rand	 rand;
	enum bench_raw	 what;
	uint64_t	 at, end_ns, done_bytes;
	unsigned	 flying;
	int		 rc;
	struct raw_io	 io[RAW_DEPTH];
};

static void raw_ended(struct disk_req *req);

static void
raw_start(struct raw_io *io)
{
	struct raw_run *r = io->run;

	io->iov.iov_len = r->what == RAW_RANDREAD ? SMALL : IO;
	io->req.op = r->what == RAW_WRITE ? DISK_WRITE : DISK_READ;
	io->req.off = r->what == RAW_RANDREAD ?
	    rand_below(&r->rand, RAW_BYTES / SMALL) * SMALL : r->at % RAW_BYTES;
	io->req.len = io->iov.iov_len;
	io->req.iov = &io->iov;
	io->req.iov_n = 1;
	r->at += IO;
	r->flying++;
	disk_start(r->disk, &io->req, raw_ended);
}

static void
raw_ended(struct disk_req *req)
{
	struct raw_io *io = container_of(req, struct raw_io, req);
	struct raw_run *r = io->run;

	r->flying--;
	if (req->rc != 0) {
		r->rc = req->rc;
		return;
	}
	r->done_bytes += req->len;
	/* The first pass over the file also allocates; it has to end. */
	if (clock_now(r->clock) < r->end_ns ||
	    (r->what == RAW_WRITE && r->at < RAW_BYTES))
		raw_start(io);
}

static int
raw_case(struct raw_run *r, struct loop *loop, enum bench_raw what, double *out)
{
	uint64_t begin = clock_now(r->clock);
	unsigned depth = what == RAW_RANDREAD ? RAW_DEPTH : 16;

	r->what = what;
	r->at = r->done_bytes = 0;
	r->end_ns = begin + MEASURE_NS;
	for (unsigned i = 0; i < depth; i++)
		raw_start(&r->io[i]);
	while (r->flying > 0)
		loop_turn(loop, true);
	*out = (double)r->done_bytes * NS_PER_S / (double)(clock_now(r->clock) - begin);
	return r->rc;
}

int
bench_raw_disk(const char *where, double raw[RAW_STREAM])
{
	static const char *const names[] = { "write", "read", "randread" };
	struct raw_run *r = calloc(1, sizeof(*r));
	struct disk_dir *dir = NULL;
	struct loop *loop = NULL;
	char path[4200];
	int rc;

	if (r == NULL)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s/fsd-bench-raw", where);
	unlink(path);
	if ((rc = loop_open(&loop)) != 0 ||
	    (rc = disk_uring_open_dir(&dir, loop, where, false)) != 0 ||
	    (rc = dir->ops->open(dir, "fsd-bench-raw", true, RAW_BYTES, &r->disk)) != 0)
		goto out;
	r->clock = loop_clock(loop);
	rand_seed(&r->rand, 1);
	for (unsigned i = 0; i < RAW_DEPTH && rc == 0; i++) {
		r->io[i].run = r;
		if ((r->io[i].iov.iov_base = aligned_alloc(4096, IO)) == NULL)
			rc = -ENOMEM;
		else
			memset(r->io[i].iov.iov_base, (int)i + 1, IO);
	}
	for (int w = 0; w < RAW_STREAM && rc == 0; w++) {
		/* Writing twice: the second pass does not allocate. */
		if (w == RAW_WRITE)
			rc = raw_case(r, loop, RAW_WRITE, &raw[w]);
		if (rc == 0)
			rc = raw_case(r, loop, (enum bench_raw)w, &raw[w]);
		printf("raw %-9s %6.1f MiB/s (io_uring, O_DIRECT, %s)\n", names[w],
		    raw[w] / (1 << 20), w == RAW_RANDREAD ? "4 KiB" : "1 MiB");
	}
	fflush(stdout);
out:
	disk_close(r->disk);		/* nothing is in flight: it has none of our memory */
	if (dir != NULL)
		dir->ops->close(dir);
	if (loop != NULL)
		loop_close(loop);
	unlink(path);
	for (unsigned i = 0; i < RAW_DEPTH; i++)
		free(r->io[i].iov.iov_base);
	free(r);
	return rc;
}

/* ---- a stream ---- */

#define STREAM_PLACES	16u
#define STREAM_MS	500u

struct giver {
	struct bench_bare bare;
	int		  fd, rc;
};

static void *
give(void *arg)
{
	struct giver *g = arg;

	g->rc = bench_bare_serve(&g->bare, g->fd);
	return NULL;
}

int
bench_raw_stream(double *bytes_s, double *cpu_s_gib)
{
	size_t half = (size_t)STREAM_PLACES * IO;
	struct net_addr at = { .kind = NET_ADDR_TCP4, .ip = { 127, 0, 0, 1 } };
	struct giver g = { .bare = { .kind = BENCH_BARE_SOURCE, .len = IO,
	    .places = STREAM_PLACES } };
	struct bench_bare mine = g.bare;
	struct bench_bare_result res = { .cap = 0 };
	uint8_t *mem = malloc(2 * half);
	uint64_t cpu_us;
	pthread_t thread;
	int rc;

	if (mem == NULL)
		return -ENOMEM;
	memset(mem, 1, 2 * half);
	cpu_us = bench_cpu_us();
	g.bare.mem = mem;
	mine.mem = mem + half;
	if ((rc = g.fd = bench_bare_listen(&at)) < 0)
		goto out;
	if ((rc = -pthread_create(&thread, NULL, give, &g)) != 0) {
		close(g.fd);
		goto out;
	}
	rc = bench_bare_measure(&mine, &at, STREAM_MS, &res);
	pthread_join(thread, NULL);
	if (rc == 0)
		rc = g.rc;
	if (rc == 0 && res.bytes == 0)
		rc = -EIO;
	if (rc == 0) {
		*bytes_s = (double)res.bytes * 1e9 / (double)res.ns;
		*cpu_s_gib = (double)(bench_cpu_us() - cpu_us) / 1e6 /
		    ((double)res.bytes / (1u << 30));
	}
out:
	free(mem);
	return rc;
}
