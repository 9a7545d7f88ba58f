/* SPDX-License-Identifier: MIT */
/* client_fuse.c - the mount: session, receiving, requests, who asks. */
#include "roles/client_fuse_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECEIVE_MAX	32u		/* requests a turn: others want the loop too */
#define FREE_MAX	256u
#define BACKGROUND	256u		/* read-ahead and direct requests in flight */
#define GROUPS_NS	NS_PER_S
#define ROOM_NS		(10 * NS_PER_MS)	/* when there was no memory for a request */

/* ---- requests ---- */

struct client_fuse_req *
client_fuse_req(struct client_fuse *f, fuse_req_t req, bool changes)
{
	struct client_fuse_req *r;
	struct list *n = list_pop_front(&f->free_reqs);

	if (n != NULL) {
		r = list_entry(n, struct client_fuse_req, node);
		f->free_n--;
		memset(r, 0, sizeof(*r));
	} else if ((r = calloc(1, sizeof(*r))) == NULL) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	r->f = f;
	r->req = req;
	r->changes = changes;
	f->changes += changes;
	list_push_back(&f->reqs, &r->node);
	return r;
}

static void
run_drained(struct clock_defer *d)
{
	struct client_fuse *f = container_of(d, struct client_fuse, drained);

	f->stop_fn(f->stop_ctx);
}

static void
check_drained(struct client_fuse *f)
{
	if (f->stop_fn != NULL && list_empty(&f->reqs))
		clock_defer(f->clock, &f->drained, run_drained);
}

void
client_fuse_req_free(struct client_fuse_req *r)
{
	struct client_fuse *f = r->f;

	f->changes += r->changes;
	client_data_put(f->c, &r->mem);
	list_remove(&r->node);
	if (f->free_n >= FREE_MAX)
		free(r);
	else {
		list_push_front(&f->free_reqs, &r->node);
		f->free_n++;
	}
	check_drained(f);
}

bool
client_fuse_stopped(struct client_fuse_req *r)
{
	if (!r->f->stopped)
		return false;
	fuse_reply_none(r->req);
	return true;
}

void
client_fuse_reply(struct client_fuse_req *r, int rc)
{
	if (!client_fuse_stopped(r))
		fuse_reply_err(r->req, err_errno(rc));
	client_fuse_req_free(r);
}

/* ---- who asks ---- */

void
client_fuse_cred(struct client_fuse *f, fuse_req_t req, struct client_cred *out)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct client_fuse_groups *g;
	uint64_t now = clock_now(f->clock);
	int n;

	*out = (struct client_cred){ .uid = ctx->uid, .gid = ctx->gid };
	if (ctx->uid == 0)
		return;			/* root needs none */
	/* Reading /proc costs more than the call: a process that works hard is
	 * remembered for a second. */
	g = &f->groups[(uint32_t)ctx->pid % FUSE_GROUPS_SLOTS];
	if (g->at_ns != 0 && g->pid == ctx->pid && g->uid == ctx->uid &&
	    g->gid == ctx->gid && now - g->at_ns < GROUPS_NS) {
		out->groups = g->v;
		out->group_n = g->n;
		return;
	}
	_Static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are u32");
	n = fuse_req_getgroups(req, META_GROUPS_MAX, (gid_t *)f->group_list);
	if (n < 0)
		n = 0;			/* the process has gone, or no /proc */
	if ((unsigned)n > META_GROUPS_MAX)
		n = META_GROUPS_MAX;
	out->groups = f->group_list;
	out->group_n = (uint32_t)n;
	if ((unsigned)n > FUSE_GROUPS_KEPT)
		return;
	*g = (struct client_fuse_groups){ .at_ns = now, .pid = ctx->pid,
		.uid = ctx->uid, .gid = ctx->gid, .n = (uint32_t)n };
	memcpy(g->v, f->group_list, (size_t)n * sizeof(*g->v));
}

/* ---- attributes ---- */

static struct timespec
timespec_of(int64_t ns)
{
	int64_t s = ns / (int64_t)NS_PER_S, rest = ns % (int64_t)NS_PER_S;

	if (rest < 0) {
		s--;
		rest += (int64_t)NS_PER_S;
	}
	return (struct timespec){ .tv_sec = s, .tv_nsec = rest };
}

void
client_fuse_stat(const struct msg_attr *a, struct stat *st)
{
	*st = (struct stat){ .st_ino = a->ino, .st_mode = a->mode,
		.st_nlink = a->nlink, .st_uid = a->uid, .st_gid = a->gid,
		.st_rdev = a->rdev, .st_size = (off_t)a->size,
		.st_blksize = 4096, .st_atim = timespec_of(a->atime),
		.st_mtim = timespec_of(a->mtime),
		.st_ctim = timespec_of(a->ctime) };
	/* Holes are not known here; what matters is that data never shows as none. */
	st->st_blocks = (blkcnt_t)((a->size + 511) / 512);
	if (S_ISREG(a->mode) && a->chunk_shift >= 12 && a->chunk_shift < 31)
		st->st_blksize = a->chunk_shift > 20 ? 1 << 20 :
		    1 << a->chunk_shift;
}

void
client_fuse_entry(const struct msg_attr *a, uint64_t ttl_ns,
    struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = a->ino;
	e->generation = 1;		/* inode numbers are never used again */
	e->attr_timeout = e->entry_timeout = client_fuse_seconds(ttl_ns);
	client_fuse_stat(a, &e->attr);
}

/* ---- how far the kernel reads ahead ---- */

/* Undo the \ooo of /proc/self/mountinfo in place. */
static void
unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] != '\0' &&
		    s[3] != '\0') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
			    (s[3] - '0'));
			s += 3;
		} else
			*to++ = *s;
	}
	*to = '\0';
}

/* The kernel starts with 128 KiB; the setting is found by the device number of the mount,
 * which must not be asked of the mount itself: we are the one who would answer. */
static void
set_read_ahead(const char *mountpoint, uint64_t bytes)
{
	FILE *in = fopen("/proc/self/mountinfo", "re"), *out;
	char *line = NULL, dev[32] = "", path[64];
	size_t cap = 0;

	if (in == NULL)
		return;
	while (getline(&line, &cap, in) > 0) {
		char at[32], *save = NULL, *word;
		int k = 0;

		at[0] = '\0';
		for (word = strtok_r(line, " ", &save); word != NULL && k < 5;
		    word = strtok_r(NULL, " ", &save), k++) {
			if (k == 2)
				snprintf(at, sizeof(at), "%s", word);
			if (k != 4)
				continue;
			unescape(word);
			if (strcmp(word, mountpoint) == 0)
				memcpy(dev, at, sizeof(dev));
		}
	}
	free(line);
	fclose(in);
	snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", dev);
	if (dev[0] == '\0' || (out = fopen(path, "we")) == NULL)
		return;			/* not root: the default stays */
	fprintf(out, "%llu\n", (unsigned long long)(bytes >> 10));
	fclose(out);
}

/* ---- the session ---- */

static void
init(void *user, struct fuse_conn_info *conn)
{
	struct client_fuse *f = user;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
	    FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC |
	    FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
	    FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS;

	f->greeted = true;
	conn->want |= want & conn->capable;
	/* The kernel clears setuid bits itself, with requests of its own; splicing small
	 * pages costs more than copying them. */
	conn->want &= ~(unsigned)(FUSE_CAP_HANDLE_KILLPRIV |
	    FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
	    FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
	conn->max_write = FUSE_IO_MAX;
	conn->max_read = FUSE_IO_MAX;
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND / 4 * 3;
	conn->time_gran = 1;
}

/* The end of the mount, whoever made it. */
static void
shut(struct client_fuse *f)
{
	if (f->stopped)
		return;
	f->stopped = true;
	loop_poll_stop(&f->poll);
	clock_timer_stop(f->clock, &f->again);
	clock_undefer(f->clock, &f->ended);
	fuse_session_unmount(f->se);
}

static void
run_ended(struct clock_defer *d)
{
	struct client_fuse *f = container_of(d, struct client_fuse, ended);

	shut(f);
	client_fuse_file_stop(f);
	f->unmounted(f->ctx);
}

/* For the longest request: what libfuse asks the kernel for, as of its fuse_session_new(). */
static int
make_room(struct client_fuse *f)
{
	size_t n = 256 * (size_t)sysconf(_SC_PAGESIZE) + 4096;
	int rc = client_data_get(f->c, n, &f->room);

	f->buf.mem = f->room.p;
	return rc;
}

static void readable(struct loop_poll *p, int events);

static void
receive_again(struct clock_timer *t)
{
	struct client_fuse *f = container_of(t, struct client_fuse, again);
	int rc = loop_poll_start(&f->poll, f->loop, fuse_session_fd(f->se), LOOP_READ,
	    readable);

	if (rc != 0)
		clock_timer_start(f->clock, t, clock_now(f->clock) + ROOM_NS, receive_again);
}

/* There is no memory for a request: requests wait, the mount stays. */
static void
receive_later(struct client_fuse *f)
{
	loop_poll_stop(&f->poll);
	clock_timer_start(f->clock, &f->again, clock_now(f->clock) + ROOM_NS, receive_again);
}

static void
readable(struct loop_poll *p, int events)
{
	struct client_fuse *f = container_of(p, struct client_fuse, poll);
	int rc = events < 0 ? events : 0;

	for (unsigned n = 0; n < RECEIVE_MAX && rc >= 0; n++) {
		if (f->room.p == NULL && make_room(f) != 0) {
			receive_later(f);
			break;
		}
		rc = fuse_session_receive_buf(f->se, &f->buf);
		if (rc == -EINTR)
			rc = 0;
		else if (rc > 0) {
			stat_add(&client_stats(f->c)->fuse_requests, 1);
			f->taken = false;
			fuse_session_process_buf(f->se, &f->buf);
			if (f->taken)
				f->room = (struct mem_buf){ 0 };
		}
		if (fuse_session_exited(f->se))
			break;
	}
	if (f->greeted && !f->tuned) {
		/* Not earlier: the answer to the greeting sets it back. */
		uint64_t bytes = client_conf(f->c)->client_read_ahead;

		f->tuned = true;
		if (bytes >= 4096)
			set_read_ahead(f->mountpoint, bytes);
	}
	if (fuse_session_exited(f->se) || (rc < 0 && rc != -EAGAIN)) {
		loop_poll_stop(&f->poll);
		clock_defer(f->clock, &f->ended, run_ended);
	}
}

/* ---- open, stop, close ---- */

/* "-o" text: commas and backslashes of the name are escaped. */
static int
mount_options(const struct client_fuse_opts *o, char *out, size_t cap)
{
	const char *name = o->fsname == NULL ? "fsd" : o->fsname;
	size_t n;

	/* Root may have set-uid programs and device nodes, as on any file system of its
	 * own; libfuse would turn them off. */
	n = (size_t)snprintf(out, cap, "subtype=fsd,default_permissions,"
	    "max_read=%u%s%s%s,fsname=", FUSE_IO_MAX,
	    geteuid() == 0 ? ",suid,dev" : "",
	    o->allow_other ? ",allow_other" : "", o->read_only ? ",ro" : "");
	for (; *name != '\0'; name++) {
		if (n + 3 > cap)
			return -ENAMETOOLONG;
		if (*name == ',' || *name == '\\')
			out[n++] = '\\';
		out[n++] = *name;
	}
	out[n] = '\0';
	return 0;
}

int
client_fuse_open(struct client_fuse **out, struct client *c, struct loop *loop,
    const char *mountpoint, const struct client_fuse_opts *opts,
    void (*unmounted)(void *ctx), void *ctx)
{
	struct client_fuse *f = calloc(1, sizeof(*f));
	struct fuse_lowlevel_ops ops = { .init = init };
	char text[512], arg0[] = "fsd", arg1[] = "-o";
	char *argv[] = { arg0, arg1, text, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int rc;

	*out = NULL;
	if (f == NULL)
		return -ENOMEM;
	f->c = c;
	f->loop = loop;
	f->clock = loop_clock(loop);
	f->unmounted = unmounted;
	f->ctx = ctx;
	list_init(&f->reqs);
	list_init(&f->free_reqs);
	list_init(&f->files);
	list_init(&f->dirs);
	client_fuse_op_table(&ops);
	client_fuse_file_table(&ops);
	client_fuse_dir_table(&ops);
	rc = mount_options(opts, text, sizeof(text));
	if (rc == 0 && (f->mountpoint = strdup(mountpoint)) == NULL)
		rc = -ENOMEM;
	if (rc == 0) {
		f->se = fuse_session_new(&args, &ops, sizeof(ops), f);
		fuse_opt_free_args(&args);
		if (f->se == NULL)
			rc = -EINVAL;
	}
	if (rc == 0 && fuse_session_mount(f->se, mountpoint) != 0) {
		rc = errno > 0 ? -errno : -EIO;
		fuse_session_destroy(f->se);
		f->se = NULL;
	}
	if (rc == 0)
		rc = loop_poll_start(&f->poll, loop, fuse_session_fd(f->se),
		    LOOP_READ, readable);
	if (rc != 0) {
		client_fuse_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

void
client_fuse_stop(struct client_fuse *f, void (*fn)(void *ctx), void *ctx)
{
	shut(f);
	client_fuse_file_stop(f);
	f->stop_fn = fn;
	f->stop_ctx = ctx;
	check_drained(f);
}

void
client_fuse_close(struct client_fuse *f)
{
	struct list *n;

	if (f == NULL)
		return;
	f->stop_fn = NULL;
	if (f->se != NULL)
		shut(f);
	clock_undefer(f->clock, &f->drained);
	while (!list_empty(&f->reqs)) {
		struct client_fuse_req *r = list_entry(f->reqs.next,
		    struct client_fuse_req, node);

		fuse_reply_none(r->req);
		client_fuse_req_free(r);
	}
	while ((n = list_pop_front(&f->free_reqs)) != NULL)
		free(list_entry(n, struct client_fuse_req, node));
	client_fuse_file_close(f);
	client_fuse_dir_close(f);
	if (f->se != NULL)
		fuse_session_destroy(f->se);
	client_data_put(f->c, &f->room);
	free(f->scratch);
	free(f->mountpoint);
	free(f);
}
