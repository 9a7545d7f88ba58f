/* SPDX-License-Identifier: MIT */
/* disk_uring.c - the request queue of one loop, over io_uring (Axboe, "Efficient IO with
 * io_uring", 2019).
 *
 *   start() -> todo --once a turn--> kernel (at most DISK_IO_DEPTH) -> done -> fn
 *
 * All that was asked for in a turn is submitted with one system call.  The kernel tells
 * of completions through an eventfd that the loop polls; they are reaped in batches.
 * Without io_uring, disk_threads.c takes the kernel's place.
 *
 * Invariants:
 *  1. A request is in exactly one of todo, flying (the kernel or a thread has it) and
 *     done; inflight counts flying, file->flying those of one file.
 *  2. No callback runs from start() or close(); a closed file has no request anywhere.  What
 *     the kernel or a thread does not give back in time is left to it, with its bytes and
 *     its descriptor: a dying device must not stop the loop.
 *  3. The queue lives while a file or directory refers to it, or it is delivering. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "chunk/disk_io.h"
#include "chunk/disk_uring.h"
#include "conf/err.h"

#define RETRY_NS	NS_PER_MS	/* when the kernel has no memory just now */

/* What the kernel knows of a request.  When nobody waits for it any more, it outlives that. */
struct flight {
	struct disk_req	 *r;		/* NULL: free, or nobody waits */
	struct flight	 *next;		/* free */
};

struct disk_io {
	struct loop	  *loop;
	unsigned	   refs;
	struct disk_threads *threads;	/* NULL: io_uring */
	struct io_uring	   ring;
	bool		   ring_open;
	int		   event_fd;
	struct loop_poll   poll;
	struct clock_defer flush;
	struct clock_timer retry;
	struct list	   todo, flying, done;
	unsigned	   inflight;
	struct flight	   flights[DISK_IO_DEPTH], *free;
};

static const struct log *say_to;
static bool threads_only;
static atomic_bool said;		/* loops of several threads open disks */

void
disk_uring_setup(const struct log *log, bool use_threads_only)
{
	say_to = log;
	threads_only = use_threads_only;
}

/* ---- one request ---- */

bool
disk_io_advance(struct disk_req *r, uint64_t n)
{
	r->impl[DISK_IO_DONE] += n;
	n += r->impl[DISK_IO_INNER];
	while (r->impl[DISK_IO_PIECE] < r->iov_n &&
	    n >= r->iov[r->impl[DISK_IO_PIECE]].iov_len)
		n -= r->iov[r->impl[DISK_IO_PIECE]++].iov_len;
	r->impl[DISK_IO_INNER] = n;
	return r->impl[DISK_IO_DONE] >= r->len;
}

static void
prepare(struct io_uring_sqe *sqe, struct flight *fl)
{
	struct disk_req *r = fl->r;
	int fd = disk_io_file_of(r)->fd;
	unsigned piece = (unsigned)r->impl[DISK_IO_PIECE];
	uint64_t inner = r->impl[DISK_IO_INNER];
	uint64_t off = r->off + r->impl[DISK_IO_DONE];
	const struct iovec *v = &r->iov[piece];
	bool one = inner > 0 || r->iov_n - piece == 1;

	switch (r->op) {
	case DISK_READ:
		if (one)
			io_uring_prep_read(sqe, fd, (char *)v->iov_base + inner,
			    (unsigned)(v->iov_len - inner), off);
		else
			io_uring_prep_readv(sqe, fd, v, r->iov_n - piece, off);
		break;
	case DISK_WRITE:
		if (one)
			io_uring_prep_write(sqe, fd, (char *)v->iov_base + inner,
			    (unsigned)(v->iov_len - inner), off);
		else
			io_uring_prep_writev(sqe, fd, v, r->iov_n - piece, off);
		break;
	case DISK_SYNC:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case DISK_DISCARD:
		io_uring_prep_fallocate(sqe, fd,
		    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off,
		    (off_t)r->len);
		break;
	}
	io_uring_sqe_set_data(sqe, fl);
}

/* The kernel is through with @fl; @res is what its call returned. */
static void
settle(struct disk_io *io, struct flight *fl, int res)
{
	struct disk_req *r = fl->r;
	struct disk_file *f;
	bool moves;

	fl->r = NULL;
	fl->next = io->free;
	io->free = fl;
	if (r == NULL)
		return;
	f = disk_io_file_of(r);
	moves = r->op == DISK_READ || r->op == DISK_WRITE;
	list_remove(&r->node);
	f->flying--;
	io->inflight--;
	if (f->closing)
		return;			/* nobody wants to know */
	if (res == -EAGAIN || res == -EINTR ||
	    (moves && res > 0 && !disk_io_advance(r, (uint64_t)res))) {
		list_push_front(&io->todo, &r->node);	/* the rest */
		return;
	}
	/* Nothing moved: the file is shorter than it was. */
	r->rc = res < 0 ? res : moves && res == 0 ? -EIO : 0;
	list_push_back(&io->done, &r->node);
}

/* ---- the queue ---- */

static void flush(struct clock_defer *d);

static struct clock *
clock_of(struct disk_io *io)
{
	return loop_clock(io->loop);
}

static void
reap_ring(struct disk_io *io)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&io->ring, head, cqe) {
		struct flight *fl = io_uring_cqe_get_data(cqe);

		if (fl != NULL)		/* NULL: a cancel */
			settle(io, fl, cqe->res);
		n++;
	}
	io_uring_cq_advance(&io->ring, n);
}

static void
reap(struct disk_io *io)
{
	struct list ended, *n;

	if (io->threads == NULL) {
		reap_ring(io);
		return;
	}
	list_init(&ended);
	disk_threads_reap(io->threads, &ended);
	while ((n = list_pop_front(&ended)) != NULL) {
		struct disk_req *r = list_entry(n, struct disk_req, node);
		struct disk_file *f = disk_io_file_of(r);

		f->flying--;
		io->inflight--;
		if (!f->closing)
			list_push_back(&io->done, &r->node);
	}
}

static void
retry(struct clock_timer *t)
{
	struct disk_io *io = container_of(t, struct disk_io, retry);

	flush(&io->flush);
}

static void
submit_ring(struct disk_io *io)
{
	struct io_uring_sqe *sqe;
	int rc;

	while (io->free != NULL && !list_empty(&io->todo)) {
		struct flight *fl = io->free;

		if ((sqe = io_uring_get_sqe(&io->ring)) == NULL)
			break;		/* what is in the ring must go first */
		io->free = fl->next;
		fl->r = list_entry(list_pop_front(&io->todo), struct disk_req, node);
		prepare(sqe, fl);
		list_push_back(&io->flying, &fl->r->node);
		disk_io_file_of(fl->r)->flying++;
		io->inflight++;
	}
	if (io_uring_sq_ready(&io->ring) == 0)
		return;
	/* What the kernel did not take stays in the ring for the next time. */
	rc = io_uring_submit(&io->ring);
	if (rc < 0 || io_uring_sq_ready(&io->ring) > 0)
		clock_timer_start(clock_of(io), &io->retry,
		    clock_now(clock_of(io)) + RETRY_NS, retry);
}

static void
submit_threads(struct disk_io *io)
{
	struct list go;

	list_init(&go);
	while (io->inflight < DISK_IO_DEPTH && !list_empty(&io->todo)) {
		struct list *n = list_pop_front(&io->todo);

		disk_io_file_of(list_entry(n, struct disk_req, node))->flying++;
		io->inflight++;
		list_push_back(&go, n);
	}
	if (!list_empty(&go))
		disk_threads_submit(io->threads, &go);
}

static void
submit(struct disk_io *io)
{
	if (io->threads != NULL)
		submit_threads(io);
	else
		submit_ring(io);
}

/* Call back what has ended, then send on what may go now. */
static void
deliver(struct disk_io *io)
{
	struct list *n;

	io->refs++;			/* a callback may close the last file */
	reap(io);
	submit(io);			/* the kernel works while callbacks run */
	while ((n = list_pop_front(&io->done)) != NULL) {
		struct disk_req *r = list_entry(n, struct disk_req, node);

		r->fn(r);
	}
	disk_io_put(io);
}

static void
flush(struct clock_defer *d)
{
	struct disk_io *io = container_of(d, struct disk_io, flush);

	deliver(io);
}

static void
completions(struct loop_poll *p, int events)
{
	struct disk_io *io = container_of(p, struct disk_io, poll);
	uint64_t count;

	(void)events;
	if (read(io->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		abort();		/* an eventfd cannot fail otherwise */
	deliver(io);
}

static void
threads_woke(void *ctx)
{
	deliver(ctx);
}

/* ---- one file ---- */

static void
start(struct disk *d, struct disk_req *r)
{
	struct disk_file *f = container_of(d, struct disk_file, disk);
	struct disk_io *io = f->io;

	if (r->op != DISK_SYNC) {
		assert(r->off % DISK_ALIGN == 0);
		assert(r->len > 0 && r->len % DISK_ALIGN == 0);
		assert(r->off <= d->size && r->len <= d->size - r->off);
	}
	if (r->op == DISK_READ || r->op == DISK_WRITE)
		assert(r->iov_n > 0 && r->iov_n <= DISK_IOV_MAX);
	r->rc = 0;
	r->impl[DISK_IO_FILE] = (uint64_t)(uintptr_t)f;
	r->impl[DISK_IO_DONE] = r->impl[DISK_IO_PIECE] = 0;
	r->impl[DISK_IO_INNER] = 0;
	list_push_back(&io->todo, &r->node);
	clock_defer(clock_of(io), &io->flush, flush);
}

static void
drop_of(struct list *from, const struct disk_file *f)
{
	list_for_each_safe(it, tmp, from)
		if (disk_io_file_of(list_entry(it, struct disk_req, node)) == f)
			list_remove(it);
}

static bool
flies(const struct flight *fl, const struct disk_file *f)
{
	return fl->r != NULL && disk_io_file_of(fl->r) == f;
}

/* Whatever the kernel has of @f still is left to it. */
static unsigned
leave_ring(struct disk_io *io, struct disk_file *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DISK_IO_DEPTH; i++) {
		struct flight *fl = &io->flights[i];

		if (!flies(fl, f))
			continue;
		list_remove(&fl->r->node);
		fl->r = NULL;
		n++;
	}
	return n;
}

/* The clock of the loop stands still while one of its callbacks runs. */
static uint64_t
real_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Ask the kernel to give up what it has of @f, and wait a while until it has let go: some
 * operations can only be waited for.  Returns how many it has kept. */
static unsigned
cancel_ring(struct disk_io *io, struct disk_file *f)
{
	uint64_t until = real_ns() + DISK_IO_PATIENCE_NS, now;
	struct io_uring_sqe *sqe;
	uint64_t count;

	for (unsigned i = 0; i < DISK_IO_DEPTH; i++) {
		struct flight *fl = &io->flights[i];

		if (!flies(fl, f))
			continue;
		if ((sqe = io_uring_get_sqe(&io->ring)) == NULL) {
			io_uring_submit(&io->ring);
			if ((sqe = io_uring_get_sqe(&io->ring)) == NULL)
				break;	/* then just wait */
		}
		io_uring_prep_cancel(sqe, fl, 0);
		io_uring_sqe_set_data(sqe, NULL);
	}
	for (;;) {
		struct pollfd p = { .fd = io->event_fd, .events = POLLIN };

		io_uring_submit(&io->ring);
		reap_ring(io);
		now = real_ns();
		if (f->flying == 0 || now >= until)
			break;
		if (poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) > 0 &&
		    read(io->event_fd, &count, sizeof(count)) < 0 &&
		    errno != EAGAIN && errno != EINTR)
			abort();	/* an eventfd cannot fail otherwise */
	}
	return f->flying == 0 ? 0 : leave_ring(io, f);
}

static unsigned
cancel_threads(struct disk_io *io, struct disk_file *f)
{
	struct list ended;
	unsigned n;

	list_init(&ended);
	n = disk_threads_cancel(io->threads, f, &ended);
	while (list_pop_front(&ended) != NULL) {
		f->flying--;
		io->inflight--;
	}
	reap(io);
	return n;
}

static bool
close_file(struct disk *d)
{
	struct disk_file *f = container_of(d, struct disk_file, disk);
	struct disk_io *io = f->io;
	unsigned n = 0;

	f->closing = true;
	drop_of(&io->todo, f);
	if (f->flying > 0)
		n = io->threads == NULL ? cancel_ring(io, f) : cancel_threads(io, f);
	f->flying -= n;
	io->inflight -= n;
	assert(f->flying == 0);
	drop_of(&io->done, f);
	/* Others' requests may have ended meanwhile, or may go now. */
	if (!list_empty(&io->done) || !list_empty(&io->todo))
		clock_defer(clock_of(io), &io->flush, flush);
	if (n > 0)
		log_error(say_to, "disk closed with requests that it never answered, their "
		    "memory is left to them", "requests=%u fd=%d", n, f->fd);
	else
		close(f->fd);
	free(f);
	disk_io_put(io);
	return n == 0;
}

static const struct disk_ops ops = { .start = start, .close = close_file };

int
disk_io_open(struct disk_io *io, int fd, uint64_t size, struct disk **out)
{
	struct disk_file *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		close(fd);
		return -ENOMEM;
	}
	f->disk.ops = &ops;
	f->disk.size = size;
	f->io = io;
	f->fd = fd;
	io->refs++;
	*out = &f->disk;
	return 0;
}

/* ---- open and close ---- */

static int
open_ring(struct disk_io *io)
{
	struct io_uring_params p = { .flags = IORING_SETUP_COOP_TASKRUN };
	int rc;

	/* Twice the depth of completions fits: requests and their cancels. */
	rc = io_uring_queue_init_params(DISK_IO_DEPTH, &io->ring, &p);
	if (rc == -EINVAL) {		/* Linux before 5.19 */
		p = (struct io_uring_params){ 0 };
		rc = io_uring_queue_init_params(DISK_IO_DEPTH, &io->ring, &p);
	}
	if (rc != 0)
		return rc;
	io->ring_open = true;
	io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (io->event_fd < 0)
		return -errno;
	if ((rc = io_uring_register_eventfd(&io->ring, io->event_fd)) != 0)
		return rc;
	return loop_poll_start(&io->poll, io->loop, io->event_fd, LOOP_READ,
	    completions);
}

static void
close_ring(struct disk_io *io)
{
	loop_poll_stop(&io->poll);
	if (io->ring_open)
		io_uring_queue_exit(&io->ring);
	io->ring_open = false;
	if (io->event_fd >= 0)
		close(io->event_fd);
	io->event_fd = -1;
}

int
disk_io_get(struct disk_io **out, struct loop *loop)
{
	struct disk_io *io = *loop_disk_slot(loop);
	int rc = -ENOSYS;

	*out = io;
	if (io != NULL) {
		io->refs++;
		return 0;
	}
	if ((io = calloc(1, sizeof(*io))) == NULL)
		return -ENOMEM;
	io->loop = loop;
	io->refs = 1;
	io->event_fd = -1;
	list_init(&io->todo);
	list_init(&io->flying);
	list_init(&io->done);
	for (unsigned i = DISK_IO_DEPTH; i-- > 0;) {
		io->flights[i].next = io->free;
		io->free = &io->flights[i];
	}
	if (!threads_only && (rc = open_ring(io)) != 0)
		close_ring(io);
	if (!atomic_exchange(&said, true)) {
		if (rc == 0)
			log_debug(say_to, "disks are reached by io_uring", "%s", "");
		else
			log_warn(say_to, "no io_uring, disks are reached by threads",
			    "reason=%s", err_name(rc));
	}
	if (rc != 0)
		rc = disk_threads_open(&io->threads, clock_of(io), threads_woke, io);
	if (rc != 0) {
		free(io);
		return rc;
	}
	*loop_disk_slot(loop) = io;
	*out = io;
	return 0;
}

void
disk_io_put(struct disk_io *io)
{
	if (--io->refs > 0)
		return;
	assert(io->inflight == 0);
	assert(list_empty(&io->todo));
	clock_undefer(clock_of(io), &io->flush);
	clock_timer_stop(clock_of(io), &io->retry);
	close_ring(io);
	disk_threads_close(io->threads);
	*loop_disk_slot(io->loop) = NULL;
	free(io);
}
