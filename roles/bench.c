/* SPDX-License-Identifier: MIT */
/* bench.c - cases are rows: how many workers, what each does again and again for a while.
 *
 *   OPEN -> PREPARE (raw limits, a directory, files) -> each case -> CLEAN -> end
 *              any failure, or a signal: what is in flight ends ---^
 *
 * Only what a wanted case needs is made: filled files for the data cases, empty ones for
 * attributes.  CLEAN removes all of it; removing what `create` made is a case by itself.
 * After a failure it takes what is there, and CLEAN_NS at most: the cluster may have gone.
 *
 * A worker has one operation in flight; concurrency is the number of workers.  Nothing is
 * timed but by the loop's clock. */
#include "roles/bench.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/loop.h"
#include "net/tcp.h"
#include "roles/bench_bare.h"
#include "roles/bench_raw.h"
#include "roles/client.h"
#include "roles/process.h"

#define WORKERS_MAX	256u
#define WRITERS		64u
#define FILES		8u		/* of the streaming cases */
#define FILE_BYTES	(128ull << 20)
#define CACHED_BYTES	(8ull << 20)	/* of each, to stay in memory */
#define IO		(1u << 20)
#define SMALL		4096u
#define STAT_FILES	256u
#define CLEAN_NS	(30 * NS_PER_S)	/* after a failure */

struct bench;
struct worker;

struct bench_case {
	const char *name;
	unsigned    workers;
	uint32_t    bytes;		/* of one operation */
	void	  (*start)(struct worker *w);	/* begin one operation */
	uint64_t    span;		/* needs so much of each file to be filled */
	bool	    names;		/* needs the files to stat */
	int	    limit;		/* enum bench_raw, or -1 */
	double	    limit_factor;	/* of that limit is the aim */
	double	    floor;		/* least ratio, or without a limit op/s; 0: none */
	const char *what;
};

struct worker {
	struct bench	 *b;
	unsigned	  id;
	struct client_op  op;
	struct client_io  io;
	struct client_file *file;
	uint64_t	  began_ns, n;
	uint64_t	  made, gone;	/* files of `create` */
	uint8_t		 *data;
};

struct bench {
	const struct conf *conf;
	struct process	*process;
	struct role_env	*env;
	struct client	*client;
	const char	*raw_dir;
	const char *const *names;
	unsigned	 name_n;
	double		 raw[RAW_N];	/* bytes per second, 0: not measured */
	struct worker	 workers[WORKERS_MAX];
	uint8_t		*data;		/* what the first WRITERS write, IO each */
	unsigned	 running, at;
	unsigned	 flying;	/* operations in flight, until it cleans */
	bool		 measuring;
	bool		 left;		/* something could not be removed */
	struct clock_timer patience;
	uint64_t	 told_ns;	/* to end, first; 0: not yet */
	unsigned	 clean;		/* names of prepare() that are gone */
	uint64_t	 begin_ns, end_ns, measure_ns;
	uint64_t	 ops, cpu_us;
	struct net_tcp_stat tcp;	/* when the case began */
	uint32_t	*lat_us;	/* one per operation, bounded */
	size_t		 lat_n, lat_cap;
	ino_id		 dir, stats[STAT_FILES];
	struct client_file *open[FILES];
	char		 name[64];	/* of dir */
	unsigned	 prep, stat_n;	/* files to stat, when that is wanted */
	int		 rc;
};

static const struct client_cred root = { 0 };

static void case_begin(struct bench *b);
static void prepare(struct bench *b);
static void clean_made(struct bench *b);

/* ---- failures ---- */

static void
out_of_patience(struct clock_timer *t)
{
	struct bench *b = container_of(t, struct bench, patience);

	fprintf(stderr, "fsd bench: /%s is left behind\n", b->name);
	process_quit(b->process);
}

/* No operation is begun any more; the last one in flight cleans. */
static void
give_up(struct bench *b)
{
	if (b->rc != 0)
		return;
	b->rc = 1;
	clock_timer_start(b->env->clock, &b->patience,
	    clock_now(b->env->clock) + CLEAN_NS, out_of_patience);
	if (b->prep == 0 && b->flying == 0)
		process_quit(b->process);	/* nothing was made yet */
}

/* An operation has ended; false: and so has everything. */
static bool
landed(struct bench *b, const char *what, int rc)
{
	b->flying--;
	if (rc != 0 && b->rc == 0) {
		fprintf(stderr, "fsd bench: %s: %s\n", what, err_text(rc));
		give_up(b);
	}
	if (b->rc != 0 && b->flying == 0)
		clean_made(b);
	return b->rc == 0;
}

static void
on_signal(void *ctx, int number)
{
	struct bench *b = ctx;

	(void)number;
	if (process_told_again(b->env->clock, &b->told_ns))
		out_of_patience(&b->patience);
	else
		give_up(b);
}

/* ---- the cases ---- */

static void
count(struct worker *w)
{
	struct bench *b = w->b;
	uint64_t now = clock_now(b->env->clock);

	if (b->measuring && now <= b->end_ns) {
		b->ops++;
		if (b->lat_n < b->lat_cap)
			b->lat_us[b->lat_n++] = (uint32_t)((now - w->began_ns) / 1000);
	}
}

static const struct bench_case *current(const struct bench *b);

static void
again(struct worker *w)
{
	struct bench *b = w->b;

	w->began_ns = clock_now(b->env->clock);
	if (w->began_ns >= b->end_ns) {
		if (--b->running == 0)
			case_begin(b);
		return;
	}
	w->n++;
	b->flying++;
	current(b)->start(w);
}

static void
ended(struct worker *w, int rc)
{
	if (!landed(w->b, "operation", rc))
		return;
	count(w);
	again(w);
}

static void
op_ended(struct client_op *op, int rc)
{
	ended(container_of(op, struct worker, op), rc);
}

static void
write_ended(struct client_io *io, int rc)
{
	ended(container_of(io, struct worker, io), rc);
}

static void
read_ended(struct client_io *io, int rc)
{
	struct worker *w = container_of(io, struct worker, io);

	if (rc == 0)
		client_read_done(w->b->client, io);
	ended(w, rc);
}

static uint64_t
stream_offset(const struct worker *w, const struct bench_case *c)
{
	unsigned per_file = c->workers / FILES;
	uint64_t step = (w->n - 1) * per_file + w->id / FILES;

	return step % (c->span / IO) * IO;
}

static void
start_write(struct worker *w)
{
	client_write(w->b->open[w->id % FILES], &w->io, write_ended,
	    stream_offset(w, current(w->b)), w->data, IO, true);
}

static void
start_read(struct worker *w)
{
	client_read(w->b->open[w->id % FILES], &w->io, read_ended,
	    stream_offset(w, current(w->b)), IO);
}

static void
start_randread(struct worker *w)
{
	uint64_t r = rand_below(w->b->env->rand, FILE_BYTES / SMALL);

	client_read(w->b->open[w->id % FILES], &w->io, read_ended, r * SMALL, SMALL);
}

static void
start_randwrite(struct worker *w)
{
	uint64_t r = rand_below(w->b->env->rand, FILE_BYTES / SMALL);

	client_write(w->b->open[w->id % FILES], &w->io, write_ended, r * SMALL, w->data,
	    SMALL, true);
}

static void
start_create(struct worker *w)
{
	char name[64];

	w->made = w->n;
	snprintf(name, sizeof(name), "c%u-%" PRIu64, w->id, w->n);
	client_mknod(w->b->client, &w->op, op_ended, &root, w->b->dir, name,
	    S_IFREG | 0644, 0);
}

static void
start_stat(struct worker *w)
{
	client_getattr(w->b->client, &w->op, op_ended, &root,
	    w->b->stats[(w->id * 31 + w->n) % STAT_FILES]);
}

static void
start_lookup(struct worker *w)
{
	char name[64];

	snprintf(name, sizeof(name), "stat%u",
	    1 + FILES + (unsigned)((w->id * 31 + w->n) % STAT_FILES));
	client_lookup(w->b->client, &w->op, op_ended, &root, w->b->dir, name);
}

/* Sequential write goes to three replicas on one disk, so a third of raw is its limit. */
static const struct bench_case cases[] = {
	{ "write",      16, IO,    start_write,     FILE_BYTES,   false, RAW_WRITE,    1.0 / 3, 0.5,
	    "1 MiB sequential writes, all replicas" },
	{ "read",       16, IO,    start_read,      FILE_BYTES,   false, RAW_READ,     1,       0.5,
	    "1 MiB sequential reads" },
	{ "cached",     16, IO,    start_read,      CACHED_BYTES, false, RAW_STREAM,   1,       0.6,
	    "1 MiB sequential reads, again and again, of 64 MiB" },
	{ "randread",   64, SMALL, start_randread,  FILE_BYTES,   false, RAW_RANDREAD, 1,       0,
	    "4 KiB random reads" },
	{ "randwrite",  64, SMALL, start_randwrite, FILE_BYTES,   false, -1,           0,       0,
	    "4 KiB random overwrites, all replicas" },
	{ "create",    128, 0,     start_create,    0,            false, -1,           0,       10000,
	    "files made in one directory, durable" },
	{ "stat",      128, 0,     start_stat,      0,            true,  -1,           0,       60000,
	    "attributes by inode, each asked of the metadata service" },
	{ "lookup",    128, 0,     start_lookup,    0,            true,  -1,           0,       60000,
	    "attributes by name, each asked of the metadata service" },
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static const struct bench_case *
current(const struct bench *b)
{
	return &cases[b->at];
}

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t
percentile(const struct bench *b, unsigned percent)
{
	return b->lat_n > 0 ? b->lat_us[b->lat_n * percent / 100] : 0;
}

static void
line(struct bench *b, const char *name, double ops, double bytes)
{
	qsort(b->lat_us, b->lat_n, sizeof(*b->lat_us), by_value);
	printf("%-10s %9.1f MiB/s %9.0f op/s  p50 %6u us  p99 %6u us", name,
	    bytes / (1 << 20), ops, percentile(b, 50), percentile(b, 99));
}

static const struct net_tcp_stat *
tcp_stats(const struct bench *b)
{
	return net_tcp_stats(net_hub_transport(b->env->hub, NET_ADDR_TCP4));
}

/* What the case cost here, of which the payload's way through TCP. */
static void
report_costs(const struct bench *b)
{
	double mib = (double)b->ops * current(b)->bytes / (1u << 20);
	const struct net_tcp_stat *now = tcp_stats(b);
	uint64_t calls = now->reads + now->writes - b->tcp.reads - b->tcp.writes;
	uint64_t moved = now->recv_bytes + now->sent_bytes - b->tcp.recv_bytes -
	    b->tcp.sent_bytes;

	printf("  CPU %.3f s/GiB here", (double)b->cpu_us / 1e6 / (mib / 1024));
	if (moved > 0)
		printf(", %.1f calls/MiB and %.2f %% of the bytes copied by TCP",
		    (double)calls / mib, (double)(now->copied_bytes -
		    b->tcp.copied_bytes) * 100 / (double)moved);
}

static void
report(struct bench *b)
{
	const struct bench_case *c = current(b);
	double seconds = (double)b->measure_ns / NS_PER_S;
	double ops = (double)b->ops / seconds, bytes = ops * c->bytes, got = ops;
	bool limit = c->limit >= 0 && b->raw[c->limit] > 0;

	line(b, c->name, ops, bytes);
	if (limit) {
		got = bytes / (b->raw[c->limit] * c->limit_factor);
		printf("  %.2f of raw%s%s", got, c->limit == RAW_STREAM ? " stream" : "",
		    c->limit_factor < 1 ? "/3" : "");
	}
	if (c->floor > 0 && (limit || c->limit < 0))
		printf("  %s", got >= c->floor ? "ok" : "below floor");
	if (c->bytes > 0 && b->ops > 0)
		report_costs(b);
	printf("  (%s)\n", c->what);
	fflush(stdout);
}

/* A stream is no limit of a cluster whose disks are slower: only who asks gets that. */
static bool
wanted(const struct bench *b, const struct bench_case *c)
{
	for (unsigned i = 0; i < b->name_n; i++)
		if (strcmp(b->names[i], c->name) == 0)
			return true;
	return b->name_n == 0 && c->limit != RAW_STREAM;
}

/* So much of each file must be filled. */
static uint64_t
span_wanted(const struct bench *b)
{
	uint64_t span = 0;

	for (size_t i = 0; i < CASES; i++)
		if (cases[i].span > span && wanted(b, &cases[i]))
			span = cases[i].span;
	return span;
}

/* Before a case and behind it; the mean counts, for others may use the processors too. */
static void
measure_stream(struct bench *b)
{
	double bytes_s, cpu;
	int rc = bench_raw_stream(&bytes_s, &cpu);

	if (rc != 0) {
		fprintf(stderr, "fsd bench: bare stream: %s\n", err_text(rc));
		return;
	}
	printf("raw %-9s %6.1f MiB/s  CPU %.3f s/GiB, both ends (TCP over loopback, 1 MiB)\n",
	    "stream", bytes_s / (1 << 20), cpu);
	b->raw[RAW_STREAM] = b->raw[RAW_STREAM] > 0 ?
	    (b->raw[RAW_STREAM] + bytes_s) / 2 : bytes_s;
}

/* The next case that is wanted; called when the one before has ended. */
static void
case_begin(struct bench *b)
{
	if (b->measuring) {
		b->cpu_us = bench_cpu_us() - b->cpu_us;
		if (current(b)->limit == RAW_STREAM)
			measure_stream(b);
		report(b);
		b->at++;
	}
	while (b->at < CASES && !wanted(b, &cases[b->at]))
		b->at++;
	if (b->at == CASES) {
		b->measuring = false;
		clean_made(b);
		return;
	}
	if (current(b)->limit == RAW_STREAM)
		measure_stream(b);
	loop_touch(process_loop(b->process, b->env));
	b->measuring = true;
	b->ops = 0;
	b->lat_n = 0;
	b->cpu_us = bench_cpu_us();
	b->tcp = *tcp_stats(b);
	b->begin_ns = clock_now(b->env->clock);
	b->end_ns = b->begin_ns + b->measure_ns;
	b->running = current(b)->workers;
	for (unsigned i = 0; i < current(b)->workers; i++)
		b->workers[i].n = 0;
	for (unsigned i = 0; i < current(b)->workers; i++)
		again(&b->workers[i]);
}

/* ---- preparing: a directory, files to stream, files to stat ---- */

static void
prepared(struct client_op *op, int rc)
{
	struct bench *b = container_of(op, struct worker, op)->b;
	unsigned i = b->prep;

	if (rc == 0 && i == 0)
		b->dir = op->entry->attr.ino;
	else if (rc == 0 && i > FILES)
		b->stats[i - 1 - FILES] = op->entry->attr.ino;
	b->prep++;
	if (landed(b, "preparing", rc))
		prepare(b);
}

static void
filled(struct client_io *io, int rc)
{
	struct worker *w = container_of(io, struct worker, io);
	struct bench *b = w->b;

	if (!landed(b, "filling files", rc))
		return;
	if (++w->n == span_wanted(b) / IO) {
		if (--b->running == 0)
			case_begin(b);
		return;
	}
	b->flying++;
	client_write(b->open[w->id], &w->io, filled, w->n * IO, w->data, IO, true);
}

static void
prepare(struct bench *b)
{
	struct worker *w = &b->workers[0];
	char name[64];

	b->flying++;
	if (b->prep == 0) {
		snprintf(b->name, sizeof(b->name), "bench-%d-%" PRIu64, (int)getpid(),
		    clock_now(b->env->clock));
		client_mkdir(b->client, &w->op, prepared, &root, INO_ROOT, b->name,
		    0755);
	} else if (b->prep <= FILES) {
		snprintf(name, sizeof(name), "stream%u", b->prep);
		client_file_create(b->client, &w->op, prepared, &root, b->dir, name, 0644,
		    O_RDWR | O_CREAT, &b->open[b->prep - 1]);
	} else if (b->prep <= FILES + b->stat_n) {
		snprintf(name, sizeof(name), "stat%u", b->prep);
		client_mknod(b->client, &w->op, prepared, &root, b->dir, name,
		    S_IFREG | 0644, 0);
	} else if (span_wanted(b) == 0) {
		b->flying--;
		case_begin(b);
	} else {
		b->running = b->flying = FILES;
		for (unsigned i = 0; i < FILES; i++) {
			b->workers[i].n = 0;
			client_write(b->open[i], &b->workers[i].io, filled, 0,
			    b->workers[i].data, IO, true);
		}
	}
}

/* ---- cleaning: all that was made ---- */

static void clean_one(struct worker *w);

/* After a failure some of it may not be there. */
static void
removed(struct bench *b, int rc)
{
	if (rc == 0 || (rc == -ENOENT && b->rc != 0))
		return;
	if (!b->left)
		fprintf(stderr, "fsd bench: removing /%s: %s\n", b->name, err_text(rc));
	b->left = true;
}

/* The names of prepare(), then the directory; one after the other. */
static void
clean_next(struct client_op *op, int rc)
{
	struct worker *w = container_of(op, struct worker, op);
	struct bench *b = w->b;
	unsigned i = ++b->clean;
	char name[64];

	removed(b, rc);
	if (i <= FILES + b->stat_n) {
		snprintf(name, sizeof(name), "%s%u", i <= FILES ? "stream" : "stat", i);
		client_unlink(b->client, op, clean_next, &root, b->dir, name);
	} else if (i == FILES + b->stat_n + 1) {
		client_rmdir(b->client, op, clean_next, &root, INO_ROOT, b->name);
	} else {
		if (b->left)
			b->rc = 1;
		process_quit(b->process);
	}
}

static void
made_gone(struct bench *b)
{
	double s = (double)(clock_now(b->env->clock) - b->begin_ns) / NS_PER_S;

	if (b->ops > 0 && b->rc == 0) {
		line(b, "unlink", (double)b->ops / s, 0);
		printf("  (what create made, durable)\n");
		fflush(stdout);
	}
	for (unsigned i = 0; i < FILES; i++) {
		if (b->open[i] != NULL)
			client_release(b->open[i]);
		b->open[i] = NULL;
	}
	b->clean = 0;
	clean_next(&b->workers[0].op, 0);
}

static void
unlinked(struct client_op *op, int rc)
{
	struct worker *w = container_of(op, struct worker, op);

	removed(w->b, rc);
	if (rc == 0)
		count(w);
	clean_one(w);
}

static void
clean_one(struct worker *w)
{
	struct bench *b = w->b;
	char name[64];

	if (w->gone == w->made) {
		if (--b->running == 0)
			made_gone(b);
		return;
	}
	w->began_ns = clock_now(b->env->clock);
	snprintf(name, sizeof(name), "c%u-%" PRIu64, w->id, ++w->gone);
	client_unlink(b->client, &w->op, unlinked, &root, b->dir, name);
}

static void
clean_made(struct bench *b)
{
	if (b->dir == 0) {
		process_quit(b->process);
		return;
	}
	b->ops = 0;
	b->lat_n = 0;
	b->begin_ns = clock_now(b->env->clock);
	b->end_ns = UINT64_MAX;
	b->measuring = true;
	b->running = WORKERS_MAX;
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		clean_one(&b->workers[i]);
}

static void
client_is_ready(void *ctx, int rc)
{
	struct bench *b = ctx;

	if (rc != 0) {
		fprintf(stderr, "fsd bench: cannot reach the cluster: %s\n", err_text(rc));
		give_up(b);
	} else if (b->rc == 0)
		prepare(b);
}

int
bench_run(const struct conf *conf, const uint8_t key[NET_KEY_BYTES],
    const struct net_addr *managers, unsigned manager_n, const char *raw,
    unsigned seconds, const char *const *names, unsigned name_n)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct net_mem_set *known = NULL;
	int rc;

	if (b == NULL)
		return 1;
	for (unsigned i = 0; i < name_n; i++) {
		bool found = false;

		for (size_t k = 0; k < CASES; k++)
			found = found || strcmp(cases[k].name, names[i]) == 0;
		if (!found) {
			fprintf(stderr, "fsd bench: no case '%s'; there are:\n", names[i]);
			for (size_t k = 0; k < CASES; k++)
				fprintf(stderr, "  %-10s %s\n", cases[k].name,
				    cases[k].what);
			free(b);
			return 2;
		}
	}
	b->conf = conf;
	b->raw_dir = raw;
	b->measure_ns = seconds * NS_PER_S;
	b->names = names;
	b->name_n = name_n;
	for (size_t k = 0; k < CASES; k++)
		if (cases[k].names && wanted(b, &cases[k]))
			b->stat_n = STAT_FILES;
	b->data = mmap(NULL, (size_t)WRITERS * IO, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b->lat_cap = 4u << 20;
	b->lat_us = malloc(b->lat_cap * sizeof(*b->lat_us));
	if (raw != NULL && (rc = bench_raw_disk(raw, b->raw)) != 0)
		fprintf(stderr, "fsd bench: %s: %s\n", raw, err_text(rc));
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
		b->workers[i].b = b;
		b->workers[i].id = i;
		if (i < WRITERS && b->data != MAP_FAILED)
			b->workers[i].data = memset(b->data + (size_t)i * IO, (int)i, IO);
	}
	if (b->lat_us == NULL || b->data == MAP_FAILED || process_open(&b->process, conf, key) != 0 ||
	    (b->env = process_add(b->process, "bench")) == NULL ||
	    (rc = loop_on_signal(process_loop(b->process, b->env), SIGINT, on_signal, b)) != 0 ||
	    (rc = loop_on_signal(process_loop(b->process, b->env), SIGTERM, on_signal, b)) != 0 ||
	    (rc = net_mem_add(b->env->hub, b->data, (size_t)WRITERS * IO, &known)) != 0 ||
	    (rc = client_open(&b->client, b->env, managers, manager_n, "bench",
	    client_is_ready, b)) != 0) {
		fprintf(stderr, "fsd bench: cannot start\n");
		b->rc = 1;
	} else
		(void)process_run(b->process);
	client_close(b->client);
	if (b->env != NULL) {
		clock_timer_stop(b->env->clock, &b->patience);
		net_mem_del(b->env->hub, known);
	}
	process_close(b->process);
	rc = b->rc;
	if (b->data != MAP_FAILED)
		munmap(b->data, (size_t)WRITERS * IO);
	free(b->lat_us);
	free(b);
	return rc;
}
