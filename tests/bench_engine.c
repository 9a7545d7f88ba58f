/* SPDX-License-Identifier: MIT */
/* bench_engine.c - one disk, the real one: streams and small random I/O through the engine.
 *
 *	bench_engine [DIR [MIB]]	DIR is made and removed (/tmp/fsd-bench), MIB of
 *					data (512)
 *
 * One line per case: name, bytes, operations/s, MB/s, p50 and p99 in us, and for
 * writes the bytes given to the kernel per byte asked: those of the data file are counted
 * here, those of the index are wchar of /proc/self/io (write_bytes there is several
 * times what block_bio_queue sees on ext4). */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "chunk/disk_uring.h"
#include "chunk/engine.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/rand.h"
#include "net/loop.h"

#define SHIFT	20u
#define DEPTH	32u
#define LAT_MAX	65536u

enum what { PUT, GET, PUT_SMALL, GET_SMALL, APPEND };

struct job {
	struct chunk_write w;
	struct chunk_read  r;
	uint64_t	   began;
	struct bench	  *b;
};

struct bench {
	struct loop	*loop;
	struct chunk_engine *e;
	struct mem_pool	*pool;
	struct rand	 rand;
	struct job	 jobs[DEPTH];
	uint64_t	*version;	/* of each chunk */
	bool		*busy;
	uint32_t	 chunks;
	enum what	 what;
	uint32_t	 len, left, out, next;
	uint32_t	 lat[LAT_MAX];
	unsigned	 lat_n;
	bool		 done;
};

static void	go(struct bench *b, struct job *j);

static uint64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* The data disk, with a counter in front of it. */
struct counted {
	struct disk	disk;
	struct disk    *real;
	struct disk_dir dir;
	struct disk_dir *real_dir;
	uint64_t	bytes;
};

static void
counted_start(struct disk *d, struct disk_req *r)
{
	struct counted *c = container_of(d, struct counted, disk);

	if (r->op == DISK_WRITE)
		c->bytes += r->len;
	c->real->ops->start(c->real, r);
}

static bool
counted_close(struct disk *d)
{
	return disk_close(container_of(d, struct counted, disk)->real);
}

static int
counted_open(struct disk_dir *d, const char *name, bool create, uint64_t size,
    struct disk **out)
{
	static const struct disk_ops ops = { counted_start, counted_close };
	struct counted *c = container_of(d, struct counted, dir);
	int rc = c->real_dir->ops->open(c->real_dir, name, create, size, &c->real);

	if (rc != 0)
		return rc;
	c->disk = (struct disk){ &ops, c->real->size };
	*out = &c->disk;
	return 0;
}

static int
counted_table(struct disk_dir *d, const char *name, uint64_t max, struct table_store **out)
{
	struct counted *c = container_of(d, struct counted, dir);

	return c->real_dir->ops->table(c->real_dir, name, max, out);
}

static const struct disk_dir_ops counted_ops = { .open = counted_open,
    .table = counted_table };
static struct counted counted = { .dir = { &counted_ops } };

static uint64_t
written_bytes(void)
{
	char line[128];
	uint64_t n = 0;
	FILE *f = fopen("/proc/self/io", "r");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "wchar: %" SCNu64, &n) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return n + counted.bytes;
}

static void
must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "bench_engine: %s: %s\n", what, err_text(rc));
	exit(1);
}

static void
opened(void *ctx, int rc)
{
	must(rc, "open");
	((struct bench *)ctx)->done = true;
}

static void
turn(void *ctx)
{
	loop_turn(ctx, true);
}

static void
ended(struct bench *b, struct job *j, uint32_t chunk)
{
	b->lat[b->lat_n++ % LAT_MAX] = (uint32_t)(now_us() - j->began);
	b->busy[chunk] = false;
	b->out--;
	if (b->left > 0)
		go(b, j);
}

static void
wrote(struct chunk_write *w, int rc)
{
	struct job *j = container_of(w, struct job, w);

	must(rc, "write");
	must(chunk_engine_commit(j->b->e, 1, w->id, w->version), "commit");
	ended(j->b, j, w->id.index);
}

static void
read_done(struct chunk_read *r, int rc)
{
	struct job *j = container_of(r, struct job, r);

	must(rc, "read");
	mem_put(&r->buf);
	ended(j->b, j, r->id.index);
}

static void
go(struct bench *b, struct job *j)
{
	struct chunk_write *w = &j->w;
	uint32_t chunk, off = 0;

	do {
		chunk = b->what == PUT || b->what == GET ? b->next++ % b->chunks :
		    b->what == APPEND ? (uint32_t)(j - b->jobs) :
		    (uint32_t)rand_below(&b->rand, b->chunks);
	} while (b->busy[chunk]);
	b->busy[chunk] = true;
	b->left--;
	b->out++;
	j->began = now_us();
	if (b->what == PUT_SMALL || b->what == GET_SMALL)
		off = (uint32_t)rand_below(&b->rand, (1u << SHIFT) / b->len) * b->len;
	if (b->what == GET || b->what == GET_SMALL) {
		j->r = (struct chunk_read){ .target = 1, .id = { 1, chunk }, .offset = off,
		    .len = b->len };
		chunk_read_start(&j->r, b->e, read_done);
		return;
	}
	if (b->what == APPEND)
		off = (uint32_t)b->version[chunk] * b->len;
	w->id = (struct chunk_id){ b->what == APPEND ? 2 : 1, chunk };
	w->kind = UPDATE_WRITE;
	w->target = 1;
	w->shift = SHIFT;
	w->version = ++b->version[chunk];
	w->offset = off;
	w->len = b->len;
	w->data = w->buf.p + off % CHUNK_BLOCK;
	w->crc = crc32c(0, w->data, w->len);
	chunk_write_start(w, b->e, wrote);
}

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void
run(struct bench *b, const char *name, enum what what, uint32_t len, uint32_t n)
{
	uint64_t t = now_us(), bytes = (uint64_t)n * len, put = written_bytes();
	unsigned k;

	b->what = what;
	b->len = len;
	b->left = n;
	b->lat_n = 0;
	b->next = 0;
	for (unsigned i = 0; i < DEPTH && b->left > 0; i++)
		go(b, &b->jobs[i]);
	while (b->out > 0)
		loop_turn(b->loop, true);
	t = now_us() - t;
	put = written_bytes() - put;
	k = b->lat_n < LAT_MAX ? b->lat_n : LAT_MAX;
	qsort(b->lat, k, sizeof(b->lat[0]), by_value);
	printf("%-14s %11" PRIu64 " bytes %8.0f op/s %7.0f MB/s  p50 %6u p99 %6u us",
	    name, bytes, n * 1e6 / (double)t, (double)bytes / (double)t, b->lat[k / 2],
	    b->lat[k - 1 - k / 100]);
	if (what != GET && what != GET_SMALL)
		printf("  written/asked %.2f", (double)put / (double)bytes);
	printf("\n");
}

int
main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/tmp/fsd-bench";
	uint32_t mib = argc > 2 ? (uint32_t)atoi(argv[2]) : 512;
	static struct bench b;
	struct uid128 id = { { 1 } };
	struct disk_dir *dir;
	struct chunk_engine_conf c;
	struct log log;
	char cmd[4200];

	log_init(&log, "bench");
	log.level = LOG_WARN;
	rand_seed(&b.rand, 1);
	b.chunks = mib;
	b.version = calloc(mib + DEPTH, sizeof(*b.version));
	b.busy = calloc(mib + DEPTH, sizeof(*b.busy));
	must(loop_open(&b.loop), "loop");
	must(mem_pool_open(&b.pool, 256u << 20, 256u << 20), "pool");
	must(disk_uring_open_dir(&dir, b.loop, path, true), path);
	counted.real_dir = dir;
	must(chunk_engine_format(&counted.dir, loop_clock(b.loop), &id, ((uint64_t)mib * 2 + 128) << 20,
	    turn, b.loop), "format");
	c = (struct chunk_engine_conf){ .clock = loop_clock(b.loop), .log = &log, .dir = &counted.dir,
	    .pool = b.pool, .index_bytes = 1ull << 30, .full_percent = 100 };
	must(chunk_engine_open(&b.e, &c, opened, &b), "open");
	while (!b.done)
		loop_turn(b.loop, true);
	for (unsigned i = 0; i < DEPTH; i++) {
		b.jobs[i].b = &b;
		must(mem_get(b.pool, 1u << SHIFT, &b.jobs[i].w.buf), "buffer");
		rand_bytes(&b.rand, b.jobs[i].w.buf.p, 1u << SHIFT);
	}
	run(&b, "write 1MiB", PUT, 1u << SHIFT, mib);
	run(&b, "rewrite 1MiB", PUT, 1u << SHIFT, mib);
	run(&b, "read 1MiB", GET, 1u << SHIFT, 2 * mib);
	run(&b, "overwrite 4KiB", PUT_SMALL, 4096, 20 * mib);
	run(&b, "read 4KiB", GET_SMALL, 4096, 100 * mib);
	memset(b.version, 0, mib * sizeof(*b.version));
	run(&b, "append 4KiB", APPEND, 4096, 200 * DEPTH);
	for (unsigned i = 0; i < DEPTH; i++)
		mem_put(&b.jobs[i].w.buf);
	chunk_engine_close(b.e);
	dir->ops->close(dir);
	mem_pool_close(b.pool);
	loop_close(b.loop);
	free(b.version);
	free(b.busy);
	snprintf(cmd, sizeof(cmd), "rm -rf -- '%s'", path);
	return argc > 1 ? 0 : system(cmd) != 0;
}
