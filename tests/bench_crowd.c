/* SPDX-License-Identifier: MIT */
/* bench_crowd.c - many clients read one file of a running cluster at once.
 *
 *	bench_crowd CONF MANAGER CLIENTS DEPTH SECONDS STRIPE [OPTION=VALUE...]
 *
 * The first client fills a file of FILE_ROWS chunks on each chain of a stripe.  Then every
 * client, on a loop of its own as if it was a process, has DEPTH reads of a chunk in flight, as
 * many from each chain; what comes in the first 3 s does not count.  Printed: bytes a second,
 * how even it was over clients and over chains (farthest from the mean), reads that failed,
 * the slowest in a hundred, and how many replies had to ask.  EACH=1: also each client. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/loop.h"
#include "roles/client.h"
#include "roles/process.h"

#define CHUNK		(1u << 20)
#define FILE_ROWS	8u
#define CLIENTS_MAX	128u
#define DEPTH_MAX	256u
#define STRIPE_MAX	64u
#define ROOT_INO	1u
#define WARM_NS		(3 * NS_PER_S)	/* all have begun, and wait */
#define LAT_MAX		(1u << 14)	/* of one client */

struct who;

struct reader {
	struct who	*w;
	struct client_io io;
	unsigned	 chain;
	uint64_t	 began_ns;
};

struct who {
	struct role_env	*env;
	struct client	*client;
	struct client_op op;
	struct client_file *file;
	struct clock_post post;
	struct reader	 readers[DEPTH_MAX];
	unsigned	 running;
	uint64_t	 bytes, by_chain[STRIPE_MAX], failed;
	uint32_t	 lat_us[LAT_MAX];
	unsigned	 lat_n, written;
};

static const struct client_cred root_cred;
static struct who whos[CLIENTS_MAX];
static struct process *process;
static unsigned client_n, depth, seconds, stripe;
static atomic_uint ready_n, open_n, over_n;
static _Atomic uint64_t begin_ns, end_ns;	/* what counts; one clock for all */
static _Atomic uint64_t file_ino;
static uint8_t chunk[CHUNK];
static char file_name[64];

static void
die(const char *what, int rc)
{
	fprintf(stderr, "bench_crowd: %s: %s\n", what, err_text(rc));
	exit(1);
}

/* ---- reading ---- */

static void next(struct reader *r);

static void
was_read(struct client_io *io, int rc)
{
	struct reader *r = container_of(io, struct reader, io);
	struct who *w = r->w;
	uint64_t now = clock_now(w->env->clock);

	if (rc == 0)
		client_read_done(w->client, io);
	if (rc != 0 || io->done != CHUNK)
		w->failed++;
	else if (now >= begin_ns && now <= end_ns) {
		w->bytes += CHUNK;
		w->by_chain[r->chain] += CHUNK;
	}
	if (w->lat_n < LAT_MAX)
		w->lat_us[w->lat_n++] = (uint32_t)((now - r->began_ns) / 1000);
	if (now < end_ns && rc == 0) {
		next(r);
		return;
	}
	if (--w->running == 0 && atomic_fetch_add(&over_n, 1) + 1 == client_n)
		process_quit(process);
}

static void
next(struct reader *r)
{
	uint64_t row = rand_below(r->w->env->rand, FILE_ROWS);

	r->began_ns = clock_now(r->w->env->clock);
	client_read(r->w->file, &r->io, was_read, (row * stripe + r->chain) * CHUNK, CHUNK);
}

static void
go(struct clock_post *p)
{
	struct who *w = container_of(p, struct who, post);

	loop_touch(process_loop(process, w->env));
	w->running = depth;
	for (unsigned i = 0; i < depth; i++) {
		w->readers[i].w = w;
		w->readers[i].chain = i % stripe;
		next(&w->readers[i]);
	}
}

static void
all(clock_post_fn *fn)
{
	for (unsigned i = 0; i < client_n; i++)
		clock_post(whos[i].env->clock, &whos[i].post, fn);
}

static void
opened(struct client_op *op, int rc)
{
	struct who *w = container_of(op, struct who, op);

	if (rc != 0)
		die("open", rc);
	if (atomic_fetch_add(&open_n, 1) + 1 < client_n)
		return;
	begin_ns = clock_now(w->env->clock) + WARM_NS;
	end_ns = begin_ns + seconds * NS_PER_S;
	all(go);
}

static void
open_file(struct clock_post *p)
{
	struct who *w = container_of(p, struct who, post);

	client_file_open(w->client, &w->op, opened, &root_cred, atomic_load(&file_ino),
	    O_RDONLY, &w->file);
}

/* ---- the file ---- */

static void
was_synced(struct client_op *op, int rc)
{
	struct who *w = container_of(op, struct who, op);

	if (rc != 0)
		die("fsync", rc);
	client_release(w->file);
	all(open_file);
}

static void
written(struct client_io *io, int rc)
{
	struct who *w = container_of(io, struct reader, io)->w;

	if (rc != 0)
		die("write", rc);
	if (++w->written == FILE_ROWS * stripe) {
		client_fsync(w->file, &w->op, was_synced);
		return;
	}
	client_write(w->file, io, written, (uint64_t)w->written * CHUNK, chunk, CHUNK, true);
}

static void
created(struct client_op *op, int rc)
{
	struct who *w = container_of(op, struct who, op);

	if (rc != 0)
		die("create", rc);
	atomic_store(&file_ino, op->entry->attr.ino);
	w->readers[0].w = w;
	client_write(w->file, &w->readers[0].io, written, 0, chunk, CHUNK, true);
}

static void
make_file(struct clock_post *p)
{
	struct who *w = container_of(p, struct who, post);

	client_file_create(w->client, &w->op, created, &root_cred, ROOT_INO, file_name, 0644,
	    O_RDWR, &w->file);
}

static void
is_ready(void *ctx, int rc)
{
	(void)ctx;
	if (rc != 0)
		die("a client cannot start", rc);
	if (atomic_fetch_add(&ready_n, 1) + 1 == client_n)
		clock_post(whos[0].env->clock, &whos[0].post, make_file);
}

/* ---- what came out ---- */

static unsigned
off_percent(const uint64_t *v, unsigned n)
{
	uint64_t sum = 0, mean, far = 0;

	for (unsigned i = 0; i < n; i++)
		sum += v[i];
	mean = sum / n;
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = v[i] > mean ? v[i] - mean : mean - v[i];

		far = off > far ? off : far;
	}
	return mean == 0 ? 100 : (unsigned)(far * 100 / mean);
}

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void
report(void)
{
	uint64_t by_client[CLIENTS_MAX], by_chain[STRIPE_MAX] = { 0 }, sum = 0, failed = 0;
	uint64_t asks = 0;
	uint32_t *lat = malloc((size_t)client_n * LAT_MAX * sizeof(*lat));
	size_t lat_n = 0;

	if (lat == NULL)
		die("report", -ENOMEM);
	for (unsigned i = 0; i < client_n; i++) {
		struct who *w = &whos[i];

		by_client[i] = w->bytes;
		sum += w->bytes;
		failed += w->failed;
		asks += net_hub_stats(w->env->hub)->asks;
		for (unsigned k = 0; k < stripe; k++)
			by_chain[k] += w->by_chain[k];
		memcpy(lat + lat_n, w->lat_us, w->lat_n * sizeof(*lat));
		lat_n += w->lat_n;
	}
	if (getenv("EACH") != NULL)
		for (unsigned i = 0; i < client_n; i++)
			fprintf(stderr, "client %u: %llu MiB\n", i,
			    (unsigned long long)(by_client[i] / CHUNK));
	qsort(lat, lat_n, sizeof(*lat), by_value);
	printf("clients=%u depth=%u chains=%u MiB/s=%.1f failed=%llu asked=%llu "
	    "p50_ms=%.1f p99_ms=%.1f clients_off=%u%% chains_off=%u%%\n", client_n, depth,
	    stripe, (double)sum / CHUNK / seconds, (unsigned long long)failed,
	    (unsigned long long)asks, lat_n > 0 ? lat[lat_n / 2] / 1e3 : 0,
	    lat_n > 0 ? lat[lat_n * 99 / 100] / 1e3 : 0, off_percent(by_client, client_n),
	    off_percent(by_chain, stripe));
	free(lat);
}

static void
set(struct conf *conf, char *option)
{
	char *value = strchr(option, '='), err[CONF_ERR_MAX] = "no value";

	if (value != NULL)
		*value++ = '\0';
	if (value == NULL || conf_set(conf, option, value, err) != 0) {
		fprintf(stderr, "bench_crowd: %s: %s\n", option, err);
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	static struct conf conf;
	uint8_t key[NET_KEY_BYTES];
	char err[CONF_ERR_MAX];
	struct net_addr manager;

	if (argc < 7) {
		fprintf(stderr, "usage: bench_crowd CONF MANAGER CLIENTS DEPTH SECONDS STRIPE "
		    "[OPTION=VALUE...]\n");
		return 2;
	}
	client_n = (unsigned)strtoul(argv[3], NULL, 10);
	depth = (unsigned)strtoul(argv[4], NULL, 10);
	seconds = (unsigned)strtoul(argv[5], NULL, 10);
	stripe = (unsigned)strtoul(argv[6], NULL, 10);
	if (client_n == 0 || client_n > CLIENTS_MAX || depth == 0 || depth > DEPTH_MAX ||
	    seconds == 0 || stripe == 0 || stripe > STRIPE_MAX) {
		fprintf(stderr, "bench_crowd: out of range\n");
		return 2;
	}
	conf_init(&conf);
	if (conf_load(&conf, argv[1], err) != 0 ||
	    process_key_read(conf.cluster_key_file, key, err) != 0) {
		fprintf(stderr, "bench_crowd: %s\n", err);
		return 1;
	}
	for (int i = 7; i < argc; i++)
		set(&conf, argv[i]);
	if (net_addr_parse(argv[2], strlen(argv[2]), &manager, NULL) != 0) {
		fprintf(stderr, "bench_crowd: %s is no address\n", argv[2]);
		return 2;
	}
	snprintf(file_name, sizeof(file_name), "crowd-%ld", (long)getpid());
	for (size_t i = 0; i < CHUNK; i++)
		chunk[i] = (uint8_t)(i * 2654435761u >> 13);
	if (process_open(&process, &conf, key) != 0)
		die("process", -ENOMEM);
	for (unsigned i = 0; i < client_n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "crowd%u", i);
		if ((whos[i].env = process_add(process, name)) == NULL ||
		    client_open(&whos[i].client, whos[i].env, &manager, 1, "crowd", is_ready,
		    NULL) != 0)
			die("client", -ENOMEM);
	}
	(void)process_run(process);
	report();
	for (unsigned i = 0; i < client_n; i++)
		client_close(whos[i].client);
	process_close(process);
	return 0;
}
