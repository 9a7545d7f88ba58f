/* SPDX-License-Identifier: MIT */
/* bench_net.c - `fsd bench net`: what calls, and payload either way, cost between two nodes.
 *
 * Rows are run one after the other, and between them, while the loop rests, the bare streams
 * of the same sizes.  The production hub, transports and loop do the work; `send` is a call
 * without payload, in READ the server takes payload, in WRITE it gives some, the words of verbs
 * for what happens over RDMA. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/call.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/rdma.h"
#include "roles/bench.h"
#include "roles/bench_bare.h"
#include "roles/process.h"

#define DEPTH_MAX	16u
#define SHELF		(16u << 20)	/* depth times length, at most */
#define SEND_LEN	64u		/* of a message in a bare stream: about a call's */
#define WARM_NS		(200 * NS_PER_MS)
#define CALL_NS		(60 * NS_PER_S)
#define SAMPLES		(1u << 20)

struct row {
	const char *name;
	uint16_t    method;
	uint32_t    len;
	unsigned    depth;
	enum bench_bare_kind bare;	/* what it is held against on TCP */
};

static const struct row rows[] = {
	{ "send",   MSG_bench_ping, 0,         1,  BENCH_BARE_ECHO },
	{ "send",   MSG_bench_ping, 0,         16, 0 },
	{ "read",   MSG_bench_take, 64 << 10,  1,  BENCH_BARE_SINK },
	{ "read",   MSG_bench_take, 64 << 10,  16, BENCH_BARE_SINK },
	{ "read",   MSG_bench_take, 1 << 20,   1,  BENCH_BARE_SINK },
	{ "read",   MSG_bench_take, 1 << 20,   16, BENCH_BARE_SINK },
	{ "read",   MSG_bench_take, 4 << 20,   4,  BENCH_BARE_SINK },
	{ "write",  MSG_bench_give, 64 << 10,  1,  BENCH_BARE_SOURCE },
	{ "write",  MSG_bench_give, 64 << 10,  16, BENCH_BARE_SOURCE },
	{ "write",  MSG_bench_give, 1 << 20,   1,  BENCH_BARE_SOURCE },
	{ "write",  MSG_bench_give, 1 << 20,   16, BENCH_BARE_SOURCE },
	{ "write",  MSG_bench_give, 4 << 20,   4,  BENCH_BARE_SOURCE },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct net_run;

struct slot {
	struct net_call	call;
	struct net_run *run;
	uint32_t	place;
	uint64_t	began_ns;
	struct iovec	iov;
};

struct net_run {
	struct process	   *process;
	struct role_env	   *env;
	struct loop	   *loop;
	struct net_addr	    to;
	uint8_t		   *mem;
	struct net_mem_set *known;
	const struct row   *row;
	struct slot	    slots[DEPTH_MAX];
	unsigned	    active;
	uint64_t	    end_ns, last_ns, n;
	uint32_t	   *rtt_ns;
	size_t		    rtt_n;
	int		    rc;
	/* the answers of single calls */
	struct msg_bench_cpu_rep  cpu;
	struct msg_bench_bare_rep bare;
};

/* ---- calls ---- */

static void again(struct net_call *c, int rc);

static uint64_t
now(struct net_run *r)
{
	loop_touch(r->loop);
	return clock_now(r->env->clock);
}

static int
start(struct slot *s, uint64_t now_ns)
{
	struct net_run *r = s->run;
	const struct row *row = r->row;
	struct msg_bench_take take = { .place = s->place };
	struct msg_bench_give give = { .place = s->place, .len = row->len };
	struct msg_none none = { 0 };
	struct net_call_opts opts = { 0 };
	const void *req = &none;

	s->iov = (struct iovec){ r->mem + (size_t)s->place * row->len, row->len };
	if (row->method == MSG_bench_take) {
		req = &take;
		opts.send = &s->iov;
		opts.send_n = 1;
	} else if (row->method == MSG_bench_give) {
		req = &give;
		opts.recv = &s->iov;
		opts.recv_n = 1;
	}
	s->began_ns = now_ns;
	opts.deadline_ns = s->began_ns + CALL_NS;
	return net_call_start(&s->call, r->env->hub, &r->to, row->method, req, &opts,
	    again);
}

static void
again(struct net_call *c, int rc)
{
	struct slot *s = container_of(c, struct slot, call);
	struct net_run *r = s->run;

	if (rc == 0) {
		r->last_ns = now(r);
		r->n++;
		if (r->rtt_n < SAMPLES)
			r->rtt_ns[r->rtt_n++] = (uint32_t)(r->last_ns - s->began_ns);
		if (r->rc == 0 && r->last_ns < r->end_ns &&
		    (rc = start(s, r->last_ns)) == 0)
			return;
	}
	if (rc != 0)
		r->rc = rc;
	r->active--;
}

/* Run @row for about @ns; returns how long it took until the last had ended. */
static uint64_t
load(struct net_run *r, const struct row *row, uint64_t ns)
{
	uint64_t began = now(r);

	r->row = row;
	r->n = r->rtt_n = 0;
	r->last_ns = began;
	r->end_ns = began + ns;
	for (unsigned i = 0; i < row->depth && r->rc == 0; i++)
		if ((r->rc = start(&r->slots[i], now(r))) == 0)
			r->active++;
	while (r->active > 0)
		loop_turn(r->loop, true);
	return r->last_ns - began;
}

static void
asked(struct net_call *c, int rc)
{
	struct net_run *r = container_of(c, struct slot, call)->run;

	if (rc != 0)
		r->rc = rc;
	else if (c->method->id == MSG_bench_cpu)
		r->cpu = *(const struct msg_bench_cpu_rep *)c->rep;
	else
		r->bare = *(const struct msg_bench_bare_rep *)c->rep;
	r->active--;
}

/* One call by itself. */
static int
ask(struct net_run *r, uint16_t method, const void *req)
{
	struct net_call_opts opts = { .deadline_ns = now(r) + CALL_NS };

	r->rc = net_call_start(&r->slots[0].call, r->env->hub, &r->to, method, req, &opts,
	    asked);
	if (r->rc == 0)
		r->active++;
	while (r->active > 0)
		loop_turn(r->loop, true);
	return r->rc;
}

static int
cpu_of_both(struct net_run *r, uint64_t *here, uint64_t *there)
{
	struct msg_none none = { 0 };
	int rc = ask(r, MSG_bench_cpu, &none);

	*here = bench_cpu_us();
	*there = r->cpu.cpu_us;
	return rc;
}

/* ---- the table ---- */

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void
head(void)
{
	printf("%-5s %-6s %8s %5s %9s %9s %8s %9s %9s  %s\n", "over", "case", "bytes",
	    "depth", "MiB/s", "op/s", "of bare", "p50 us", "p99 us",
	    "CPU s/GiB here, there (sends: us each)");
}

struct figures {
	uint64_t bytes, n, ns, here_us, there_us;
	uint32_t *rtt_ns;
	size_t	 rtt_n;
	double	 bare;			/* MiB/s, or for sends half of p50 in us; 0: none */
};

static double
mib_s(uint64_t bytes, uint64_t ns)
{
	return ns == 0 ? 0 : (double)bytes / (1 << 20) / ((double)ns / 1e9);
}

/* Half of a round trip; of a payload the whole. */
static double
percentile_us(const struct figures *f, unsigned percent)
{
	double whole = f->rtt_n == 0 ? 0 :
	    (double)f->rtt_ns[f->rtt_n * percent / 100] / 1000;

	return f->bytes == 0 ? whole / 2 : whole;
}

static void
print(const char *over, const struct row *row, const struct figures *f)
{
	double per = f->bytes > 0 ? (double)f->bytes / (1u << 30) * 1e6 : (double)f->n;
	char rate[24] = "", ratio[24] = "";
	char time[40] = "                   ";

	if (f->bytes > 0)
		snprintf(rate, sizeof(rate), "%.1f", mib_s(f->bytes, f->ns));
	if (f->bare > 0)
		snprintf(ratio, sizeof(ratio), "%.2f", f->bytes > 0 ?
		    mib_s(f->bytes, f->ns) / f->bare : percentile_us(f, 50) / f->bare);
	if (f->rtt_n > 0)
		snprintf(time, sizeof(time), "%9.1f %9.1f", percentile_us(f, 50),
		    percentile_us(f, 99));
	printf("%-5s %-6s %8" PRIu32 " %5u %9s %9.0f %8s %s  %.3f, %.3f\n", over,
	    row->name, row->len == 0 ? SEND_LEN : row->len, row->depth, rate,
	    (double)f->n * 1e9 / (double)f->ns, ratio, time, (double)f->here_us / per,
	    (double)f->there_us / per);
	fflush(stdout);
}

/* ---- bare streams ---- */

static int
bare(struct net_run *r, const struct row *row, uint32_t ms, double *out)
{
	struct msg_bench_bare m = { .kind = (uint8_t)row->bare,
	    .len = row->len == 0 ? SEND_LEN : row->len, .places = row->depth };
	struct bench_bare b = { .kind = row->bare, .mem = r->mem, .len = m.len,
	    .places = m.places };
	struct bench_bare_result res = { .rtt_ns = r->rtt_ns, .cap = SAMPLES };
	uint64_t here[2], there[2];
	struct net_addr to = r->to;
	struct figures f;
	int rc;

	if ((rc = cpu_of_both(r, &here[0], &there[0])) != 0 ||
	    (rc = ask(r, MSG_bench_bare, &m)) != 0)
		return rc;
	to.port = (uint16_t)r->bare.port;
	if ((rc = bench_bare_measure(&b, &to, ms, &res)) != 0 ||
	    (rc = cpu_of_both(r, &here[1], &there[1])) != 0)
		return rc;
	qsort(res.rtt_ns, res.n, sizeof(*res.rtt_ns), by_value);
	f = (struct figures){ .bytes = row->len == 0 ? 0 : res.bytes, .n = res.bytes / m.len,
	    .ns = res.ns, .here_us = here[1] - here[0], .there_us = there[1] - there[0],
	    .rtt_ns = res.rtt_ns, .rtt_n = res.n };
	print("bare", row, &f);
	*out = row->len == 0 ? percentile_us(&f, 50) : mib_s(f.bytes, f.ns);
	return 0;
}

/* ---- one transport ---- */

static const char *const transports[] = { "tcp", "rdma", NULL };
static const char *const cases[] = { "send", "read", "write", NULL };

/* Is @word the name @name?  Then *rest is what follows: nothing, or ":65536:16". */
static bool
is_name(const char *word, const char *name, const char **rest)
{
	size_t n = strlen(name);

	*rest = word + n;
	return strncmp(word, name, n) == 0 && (word[n] == '\0' || word[n] == ':');
}

static bool
is_one_of(const char *word, const char *const *all)
{
	const char *rest;

	while (*all != NULL && !is_name(word, *all, &rest))
		all++;
	return *all != NULL;
}

static bool
names_row(const char *word, const struct row *row)
{
	const char *rest;
	char *end;

	if (!is_name(word, row->name, &rest))
		return false;
	if (*rest == ':' && strtoul(rest + 1, &end, 10) != row->len)
		return false;
	return *rest == '\0' || *end == '\0' || (*end == ':' &&
	    strtoul(end + 1, NULL, 10) == row->depth);
}

/* Without a word for any case all are wanted. */
static bool
row_wanted(const struct row *row, const char *const *words, unsigned n)
{
	bool any = false;

	for (unsigned i = 0; i < n; i++) {
		if (names_row(words[i], row))
			return true;
		any |= is_one_of(words[i], cases);
	}
	return !any;
}

static bool
transport_wanted(const char *name, const char *const *words, unsigned n)
{
	bool any = false;

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(words[i], name) == 0)
			return true;
		any |= is_one_of(words[i], transports);
	}
	return !any;
}

static int
measure(struct net_run *r, const char *over, const struct row *row, unsigned seconds,
    double limit)
{
	uint64_t here[2], there[2];
	struct figures f = { .bare = limit };
	int rc;

	load(r, row, WARM_NS);
	if ((rc = r->rc) != 0 || (rc = cpu_of_both(r, &here[0], &there[0])) != 0)
		return rc;
	f.ns = load(r, row, seconds * NS_PER_S);
	f.n = r->n;
	f.rtt_ns = r->rtt_ns;
	f.rtt_n = r->rtt_n;
	if ((rc = r->rc) != 0 || (rc = cpu_of_both(r, &here[1], &there[1])) != 0)
		return rc;
	qsort(f.rtt_ns, f.rtt_n, sizeof(*f.rtt_ns), by_value);
	f.bytes = f.n * row->len;
	f.here_us = here[1] - here[0];
	f.there_us = there[1] - there[0];
	print(over, row, &f);
	return 0;
}

static int
run_rows(struct net_run *r, bool rdma, unsigned seconds, const char *const *names,
    unsigned name_n)
{
	const struct row *last = NULL;
	double limit = 0;
	int rc = 0;

	for (size_t i = 0; i < ROWS && rc == 0; i++) {
		const struct row *row = &rows[i];

		if (!row_wanted(row, names, name_n))
			continue;
		/* One stream has no depth: one of a size, or so, is enough. */
		if (!rdma && (last == NULL || row->len != last->len ||
		    row->bare != last->bare)) {
			limit = 0;
			rc = row->bare != 0 ? bare(r, row, seconds * 1000, &limit) : 0;
		}
		last = row;
		if (rc == 0)
			rc = measure(r, rdma ? "rdma" : "tcp", row, seconds,
			    rdma ? 0 : limit);
	}
	return rc;
}

static void
close_run(struct net_run *r)
{
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		net_call_cancel(&r->slots[i].call);
	if (r->env != NULL)
		net_mem_del(r->env->hub, r->known);
	process_close(r->process);
	if (r->mem != NULL)
		munmap(r->mem, SHELF);
	free(r->rtt_ns);
	free(r);
}

static int
open_run(struct net_run **out, const struct conf *c, const uint8_t key[NET_KEY_BYTES],
    const struct net_addr *to)
{
	struct net_run *r = calloc(1, sizeof(*r));
	int rc;

	*out = r;
	if (r == NULL)
		return -ENOMEM;
	r->to = *to;
	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		r->slots[i].run = r;
		r->slots[i].place = i;
	}
	if ((rc = process_open(&r->process, c, key)) != 0)
		return rc;
	if ((r->env = process_add(r->process, "bench")) == NULL ||
	    (r->rtt_ns = malloc(SAMPLES * sizeof(*r->rtt_ns))) == NULL)
		return -ENOMEM;
	r->loop = process_loop(r->process, r->env);
	r->mem = mmap(NULL, SHELF, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (r->mem == MAP_FAILED) {
		r->mem = NULL;
		return -ENOMEM;
	}
	if ((rc = net_mem_add(r->env->hub, r->mem, SHELF,
	    &r->known)) != 0)
		fprintf(stderr, "fsd bench: registering memory: %s\n", err_text(rc));
	return 0;
}

static int
run_transport(struct conf *conf, const uint8_t key[NET_KEY_BYTES],
    const struct net_addr *to, bool rdma, unsigned seconds, const char *const *names,
    unsigned name_n)
{
	struct net_rdma_port_stat before, after;
	struct net_transport *verbs;
	struct msg_none none = { 0 };
	struct net_run *r;
	int rc;

	if ((rc = open_run(&r, conf, key, to)) != 0 ||
	    (rc = ask(r, MSG_bench_cpu, &none)) != 0)
		goto out;
	if (!rdma) {
		rc = run_rows(r, false, seconds, names, name_n);
		goto out;
	}
	if ((verbs = net_hub_rdma(r->env->hub)) == NULL || !net_rdma_any(verbs)) {
		printf("rdma: not measured, this node has no device\n");
		goto out;
	}
	net_rdma_traffic(verbs, &before);
	if (before.connections == 0) {
		printf("rdma: not measured, no port of the other node suits any of ours\n");
		goto out;
	}
	rc = run_rows(r, true, seconds, names, name_n);
	net_rdma_traffic(verbs, &after);
	if (after.copied_bytes > before.copied_bytes)
		printf("rdma: %" PRIu64 " bytes were copied here, for memory could not be "
		    "registered\n", after.copied_bytes - before.copied_bytes);
out:
	if (rc != 0) {
		char text[NET_ADDR_TEXT];

		net_addr_text(to, text);
		fprintf(stderr, "fsd bench: %s: %s\n", text, err_text(rc));
	}
	if (r != NULL)
		close_run(r);
	return rc;
}

/* ---- the command ---- */

int
bench_net(struct conf *conf, const uint8_t key[NET_KEY_BYTES], const struct net_addr *to,
    unsigned seconds, const char *const *names, unsigned name_n)
{
	char err[CONF_ERR_MAX], devices[1024];
	int rc = 0;

	for (unsigned i = 0; i < name_n; i++)
		if (!is_one_of(names[i], transports) && !is_one_of(names[i], cases)) {
			fprintf(stderr, "fsd bench: no case '%s'; there are: tcp rdma "
			    "send read write\n", names[i]);
			return 2;
		}
	snprintf(devices, sizeof(devices), "%s", conf->rdma_devices);
	head();
	if (transport_wanted("tcp", names, name_n)) {
		if (conf_set(conf, "rdma.devices", "none", err) != 0)
			return 1;
		rc = run_transport(conf, key, to, false, seconds, names, name_n);
		if (conf_set(conf, "rdma.devices", devices, err) != 0)
			return 1;
	}
	if (rc == 0 && transport_wanted("rdma", names, name_n) &&
	    strcmp(devices, "none") != 0)
		rc = run_transport(conf, key, to, true, seconds, names, name_n);
	return rc == 0 ? 0 : 1;
}

static void
tell_parent(void *ctx, const struct net_addr *at)
{
	int *fd = ctx;

	if (write(*fd, at, sizeof(*at)) != (ssize_t)sizeof(*at))
		raise(SIGTERM);		/* nobody waits for us */
	close(*fd);
}

int
bench_net_both(struct conf *conf, const struct net_addr *listen, unsigned seconds,
    const char *const *names, unsigned name_n)
{
	uint8_t key[NET_KEY_BYTES];
	struct net_addr at;
	int fds[2], rc = 1;
	pid_t child;

	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key) ||
	    pipe(fds) != 0 || (child = fork()) < 0) {
		fprintf(stderr, "fsd bench: %s\n", strerror(errno));
		return 1;
	}
	if (child == 0) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		_exit(bench_net_serve(conf, key, listen, tell_parent, &fds[1]));
	}
	close(fds[1]);
	if (read(fds[0], &at, sizeof(at)) == (ssize_t)sizeof(at))
		rc = bench_net(conf, key, &at, seconds, names, name_n);
	close(fds[0]);
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	return rc;
}
