/* SPDX-License-Identifier: MIT */
/* metadata_session.c - clients: their leases, what they have open, who may cache.
 *
 *              any request                 lease over          lease over again
 *   (unknown) ------------> LIVE (held?) ------------> DEAD -------------------> ended
 *                             ^----- any request -------'                          |
 *                                                     records dropped <-- ghost <--'
 *
 *  1. A session lives in memory.  After a restart clients tell their opens again, since
 *     the epoch they are told has changed; until then nothing is removed (metadata_gc.c).
 *     The same holds after a time without a lease: a session runs out only while its
 *     client could have been heard.
 *  2. Opens of a dead client stay for another lease: writes of it that are still on
 *     their way have ended by then.
 *  3. At any time copies may be cached by one client only, the holder: it is committed as
 *     such before it is granted anything.  Any other client's first request is held until
 *     the last grant has run out, also after a restart. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/once.h"
#include "roles/metadata_impl.h"

/* Results of changes are kept this long behind a session, for a client that comes back
 * after a long cut and tries again what had been done. */
#define GHOST_KEEP_NS	(600 * NS_PER_S)
#define GHOSTS_MAX	65536u
#define GHOST_PAUSE_NS	(100 * NS_PER_MS)
#define SCAN_PAGE	256u

static void arm(struct metadata *m);
static void holder_update(struct metadata *m);
static void ghosts_arm(struct metadata *m, uint64_t at_ns);

static uint64_t
lease_ns(const struct metadata *m)
{
	return m->env.conf->metadata_session * NS_PER_MS;
}

static uint64_t
client_key(const struct uid128 *client)
{
	return bytes_from_be64(client->b) ^ bytes_from_be64(client->b + 8);
}

static struct metadata_session *
find(const struct metadata *m, const struct uid128 *client)
{
	struct metadata_session *s;

	for (s = map_get(&m->sessions.by_client, client_key(client)); s != NULL;
	    s = s->same)
		if (uid128_eq(&s->client, client))
			return s;
	return NULL;
}

/* Put where something was just deleted: that takes no memory. */
static void
replace(struct map *map, uint64_t key, void *value)
{
	int rc = map_put(map, key, value);

	assert(rc == 0);
}

/* ---- open files ---- */

static uintptr_t
open_count(const struct metadata *m, ino_id ino)
{
	return (uintptr_t)map_get(&m->sessions.opens, ino);
}

bool
metadata_session_is_open(const struct metadata *m, ino_id ino)
{
	return open_count(m, ino) > 0;
}

static void
closed(struct metadata *m, ino_id ino)
{
	uintptr_t n = open_count(m, ino);
	struct inode in;

	assert(n > 0);
	map_del(&m->sessions.opens, ino);
	stat_set(&m->stat.open_files, m->sessions.opens.n + (n > 1));
	if (n > 1) {
		replace(&m->sessions.opens, ino, (void *)(n - 1));
		return;
	}
	if (m->leads && fs_inode(m->fs, ino, &in) == 0 && in.nlink == 0)
		metadata_gc_look(m, ino);
}

int
metadata_session_open(struct metadata *m, const struct uid128 *client, ino_id ino,
    uint64_t handle)
{
	struct metadata_session *s = find(m, client);
	int rc;

	_Static_assert(sizeof(void *) == sizeof(ino_id), "inodes as map values");
	if (s == NULL)
		return ERR_SESSION;
	if (handle == 0 || ino == 0)
		return -EINVAL;
	if (map_get(&s->opens, handle) != NULL)
		return 0;
	if (s->opens.n >= METADATA_OPENS_MAX)
		return -ENFILE;
	rc = map_put(&m->sessions.opens, ino, (void *)(open_count(m, ino) + 1));
	if (rc != 0)
		return rc;
	stat_set(&m->stat.open_files, m->sessions.opens.n);
	if ((rc = map_put(&s->opens, handle, (void *)(uintptr_t)ino)) != 0)
		closed(m, ino);
	return rc;
}

void
metadata_session_release(struct metadata *m, const struct uid128 *client,
    uint64_t handle)
{
	struct metadata_session *s = find(m, client);
	void *ino = s == NULL ? NULL : map_del(&s->opens, handle);

	if (ino != NULL)
		closed(m, (ino_id)(uintptr_t)ino);
}

ino_id
metadata_session_handle(struct metadata *m, const struct uid128 *client,
    uint64_t handle)
{
	struct metadata_session *s = find(m, client);

	return s == NULL ? 0 : (ino_id)(uintptr_t)map_get(&s->opens, handle);
}

static void
close_all(struct metadata *m, struct metadata_session *s)
{
	struct map opens = s->opens;
	size_t it = 0;
	void *ino;

	map_init(&s->opens);
	while ((ino = map_next(&opens, &it, NULL)) != NULL)
		closed(m, (ino_id)(uintptr_t)ino);
	map_fini(&opens);
}

/* ---- begin and end ---- */

static struct metadata_session *
begin(struct metadata *m, const struct uid128 *client)
{
	struct metadata_sessions *t = &m->sessions;
	struct metadata_session *s;

	if (t->n >= METADATA_SESSIONS_MAX || (s = calloc(1, sizeof(*s))) == NULL)
		return NULL;
	s->client = *client;
	s->same = map_get(&t->by_client, client_key(client));
	if (map_put(&t->by_client, client_key(client), s) != 0) {
		free(s);
		return NULL;
	}
	map_init(&s->opens);
	/* Whoever leads, and whenever: never the same twice. */
	s->epoch = (uint64_t)t->reign << 32 | ++t->made;
	s->heard_ns = metadata_now(m);
	list_push_back(&t->live, &s->node);
	t->n++;
	stat_set(&m->stat.sessions, t->n);
	t->live_n++;
	return s;
}

static void
forget(struct metadata *m, struct metadata_session *s)
{
	struct metadata_sessions *t = &m->sessions;
	uint64_t key = client_key(&s->client);
	struct metadata_session *first = map_get(&t->by_client, key);

	if (first == s) {
		map_del(&t->by_client, key);
		if (s->same != NULL)
			replace(&t->by_client, key, s->same);
	} else {
		while (first->same != s)
			first = first->same;
		first->same = s->same;
	}
	list_remove(&s->node);
	if (!s->dead)
		t->live_n--;
	t->n--;
	stat_set(&m->stat.sessions, t->n);
	map_fini(&s->opens);
	free(s);
}

static void
ghost_add(struct metadata *m, const struct uid128 *client, uint64_t due_ns)
{
	struct metadata_sessions *t = &m->sessions;
	struct metadata_ghost *g = malloc(sizeof(*g));

	if (g == NULL)
		return;		/* its records go after the next restart */
	g->client = *client;
	g->due_ns = due_ns;
	/* Those that leave are due at once, before all others. */
	if (due_ns <= metadata_now(m))
		list_push_front(&t->ghosts, &g->node);
	else
		list_push_back(&t->ghosts, &g->node);
	t->ghosts_n++;
	if (t->ghost_timer.pos == 0 || t->ghost_timer.at_ns > due_ns)
		ghosts_arm(m, due_ns);
}

static void
end(struct metadata *m, struct metadata_session *s, bool left)
{
	struct uid128 client = s->client;

	log_info(m->log, left ? "client left" : "client session ended",
	    "opens=%zu sessions=%u", s->opens.n, m->sessions.n - 1);
	close_all(m, s);
	forget(m, s);
	ghost_add(m, &client, metadata_now(m) + (left ? 0 : GHOST_KEEP_NS));
}

static void
expire(struct clock_timer *timer)
{
	struct metadata *m = container_of(timer, struct metadata,
	    sessions.timer);
	struct metadata_sessions *t = &m->sessions;
	uint64_t now = metadata_now(m);

	if (!metadata_hears(m))
		return;			/* the next lease starts this again */
	list_for_each_safe(n, tmp, &t->live) {
		struct metadata_session *s =
		    list_entry(n, struct metadata_session, node);

		if (s->heard_ns + lease_ns(m) > now)
			break;
		s->dead = true;
		s->served = false;
		t->live_n--;
		list_remove(&s->node);
		list_push_back(&t->dead, &s->node);
	}
	list_for_each_safe(n, tmp, &t->dead) {
		struct metadata_session *s =
		    list_entry(n, struct metadata_session, node);

		if (s->heard_ns + 2 * lease_ns(m) > now)
			break;
		end(m, s, false);
	}
	holder_update(m);
	arm(m);
}

/* Both lists are ordered by when a session was heard of. */
static void
arm(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;
	uint64_t at = UINT64_MAX;

	if (!list_empty(&t->live))
		at = list_entry(t->live.next, struct metadata_session,
		    node)->heard_ns + lease_ns(m);
	if (!list_empty(&t->dead)) {
		uint64_t dead_at = list_entry(t->dead.next,
		    struct metadata_session, node)->heard_ns + 2 * lease_ns(m);

		if (dead_at < at)
			at = dead_at;
	}
	if (at != UINT64_MAX)
		clock_timer_start(m->clock, &t->timer, at, expire);
}

bool
metadata_session_told(const struct metadata *m, const struct uid128 *client)
{
	const struct metadata_session *s = find(m, client);

	return s != NULL && s->told;
}

void
metadata_session_hears(struct metadata *m)
{
	struct list *const lists[] = { &m->sessions.live, &m->sessions.dead };

	for (unsigned i = 0; i < 2; i++)
		list_for_each(n, lists[i])
			list_entry(n, struct metadata_session, node)->heard_ns =
			    metadata_now(m);
	arm(m);
}

/* ---- who may cache ---- */

/* How long we wait for the end of a time to live: clocks may differ in speed by a tenth, and
 * an answer may be long on its way, so all of it counts. */
static uint64_t
grant_ns(uint32_t ttl_ms)
{
	uint64_t ns = ttl_ms * NS_PER_MS;

	return ns + ns / 8;
}

/* Serve what was held, from the loop. */
static void
release_held(struct clock_defer *d)
{
	struct metadata *m = container_of(d, struct metadata,
	    sessions.hold_defer);
	struct list ready, *n;

	list_init(&ready);
	list_splice_back(&ready, &m->sessions.held);
	m->sessions.held_n = 0;
	while ((n = list_pop_front(&ready)) != NULL) {
		struct metadata_op *op = list_entry(n, struct metadata_op, wait);
		int rc = metadata_session_admit(m, op, metadata_client(op));

		if (rc == 0)
			metadata_dispatch(op);
		else if (rc < 0)
			metadata_reply(op, rc, NULL);
	}
}

static void
hold_over(struct clock_timer *timer)
{
	struct metadata *m = container_of(timer, struct metadata,
	    sessions.hold_timer);

	clock_defer(m->clock, &m->sessions.hold_defer, release_held);
}

static int
hold(struct metadata *m, struct metadata_op *op)
{
	struct metadata_sessions *t = &m->sessions;

	if (t->held_n >= METADATA_HELD_MAX)
		return ERR_BUSY;
	t->held_n++;
	stat_add(&m->stat.held, 1);
	list_push_back(&t->held, &op->wait);
	if (t->hold_timer.pos == 0)
		clock_timer_start(m->clock, &t->hold_timer, t->grant_end_ns,
		    hold_over);
	return 1;
}

int
metadata_session_admit(struct metadata *m, struct metadata_op *op,
    const struct uid128 *client)
{
	struct metadata_sessions *t = &m->sessions;
	struct metadata_session *s = find(m, client);

	if (uid128_zero(client))
		return -EINVAL;
	if (s == NULL) {
		if ((s = begin(m, client)) == NULL)
			return ERR_BUSY;
		if (t->timer.pos == 0)
			arm(m);
	} else {
		if (s->dead) {
			s->dead = false;
			t->live_n++;
		}
		s->heard_ns = metadata_now(m);
		list_remove(&s->node);
		list_push_back(&t->live, &s->node);
	}
	if (s->served)
		return 0;
	if (!uid128_eq(client, &t->grant_to) &&
	    metadata_now(m) < t->grant_end_ns)
		return hold(m, op);
	s->served = true;
	holder_update(m);
	return 0;
}

static void
holder_done(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata *m = container_of(r, struct metadata,
	    sessions.holder_req);

	(void)result;
	(void)len;
	m->sessions.proposing = false;
	if (rc != 0 || !m->leads)
		return;			/* who leads next reads it */
	m->sessions.holder = m->sessions.holder_next;
	holder_update(m);
}

/* Commit who is the only client now, before it is granted anything. */
static void
holder_update(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;
	uint32_t ttl_ms = (uint32_t)m->env.conf->metadata_cache_ttl;
	struct uid128 want = { { 0 } };
	uint8_t cmd[128];
	int n;

	if (t->live_n == 1 && ttl_ms != 0)
		want = list_entry(t->live.next, struct metadata_session,
		    node)->client;
	if (!m->leads || m->stopping || t->proposing ||
	    uid128_eq(&want, &t->holder))
		return;
	n = fs_cmd_holder(&want, ttl_ms, cmd, sizeof(cmd));
	assert(n > 0);
	if (group_propose(m->group, &t->holder_req, cmd, (size_t)n,
	    holder_done) != 0)
		return;			/* busy: the next request comes here again */
	t->proposing = true;
	t->holder_next = want;
}

uint32_t
metadata_session_grant(struct metadata *m, const struct uid128 *client)
{
	struct metadata_sessions *t = &m->sessions;
	uint32_t ttl_ms = (uint32_t)m->env.conf->metadata_cache_ttl;

	if (t->live_n != 1 || ttl_ms == 0)
		return 0;
	if (t->proposing || !uid128_eq(client, &t->holder)) {
		holder_update(m);
		return 0;
	}
	/* The one that lives may be another one than who asks: an answer to a client
	 * that died meanwhile. */
	if (!uid128_eq(client, &list_entry(t->live.next,
	    struct metadata_session, node)->client))
		return 0;
	t->grant_to = *client;
	t->grant_end_ns = metadata_now(m) + grant_ns(ttl_ms);
	return ttl_ms;
}

/* ---- records of clients that have gone ---- */

static void
ghost_free(struct metadata *m, struct metadata_ghost *g)
{
	m->sessions.ghosts_n--;
	free(g);
}

static void
dropped(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata *m = container_of(r, struct metadata, sessions.drop_req);
	struct metadata_sessions *t = &m->sessions;
	struct metadata_ghost *g = t->dropping;
	struct fs_result res;

	t->dropping = NULL;
	if (!m->leads) {
		ghost_free(m, g);
		return;
	}
	if (rc == 0 && (fs_result_decode(result, len, &res) != 0 ||
	    (res.effects & FS_MORE) == 0))
		ghost_free(m, g);
	else
		list_push_front(&t->ghosts, &g->node);
	/* A leader that hands over takes commands and orders none: as long as it does, each
	 * would fail at the end of its turn. */
	ghosts_arm(m, metadata_now(m) + (rc == 0 ? 0 : GHOST_PAUSE_NS));
}

/* Clients of earlier runs, a page at a time. */
static void
scan(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;

	for (unsigned i = 0; i < SCAN_PAGE; i++) {
		if (t->ghosts_n >= GHOSTS_MAX ||
		    once_next_client(group_table(m->group),
		    uid128_zero(&t->scan_after) ? NULL : &t->scan_after,
		    &t->scan_after) != 0) {
			t->scanning = false;
			return;
		}
		if (find(m, &t->scan_after) == NULL)
			ghost_add(m, &t->scan_after,
			    metadata_now(m) + GHOST_KEEP_NS);
	}
}

/* Drop the records of the first one that is due; one at a time. */
static void
ghosts_run(struct clock_timer *timer)
{
	struct metadata *m = container_of(timer, struct metadata,
	    sessions.ghost_timer);
	struct metadata_sessions *t = &m->sessions;
	struct metadata_ghost *g;
	uint8_t cmd[128];
	int n;

	if (!m->leads || m->stopping || t->dropping != NULL)
		return;
	if (t->scanning)
		scan(m);
	if (list_empty(&t->ghosts)) {
		if (t->scanning)
			ghosts_arm(m, metadata_now(m) + GHOST_PAUSE_NS);
		return;
	}
	g = list_entry(t->ghosts.next, struct metadata_ghost, node);
	if (g->due_ns > metadata_now(m) && t->ghosts_n <= GHOSTS_MAX) {
		ghosts_arm(m, t->scanning ? metadata_now(m) + GHOST_PAUSE_NS :
		    g->due_ns);
		return;
	}
	list_remove(&g->node);
	if (find(m, &g->client) != NULL) {	/* it came back */
		ghost_free(m, g);
		ghosts_arm(m, metadata_now(m));
		return;
	}
	n = fs_cmd_client_end(&g->client, cmd, sizeof(cmd));
	assert(n > 0);
	if (group_propose_freeing(m->group, &t->drop_req, cmd, (size_t)n,
	    dropped) == 0) {
		t->dropping = g;
		return;
	}
	list_push_front(&t->ghosts, &g->node);
	ghosts_arm(m, metadata_now(m) + GHOST_PAUSE_NS);
}

static void
ghosts_arm(struct metadata *m, uint64_t at_ns)
{
	clock_timer_start(m->clock, &m->sessions.ghost_timer, at_ns, ghosts_run);
}

/* ---- MSG_session ---- */

/* The session that its client knows by @epoch is not @s: has it ended, or could its opens
 * not have been told to this run before now?  Within a lease of our start nothing was
 * removed or promised that they stand in the way of. */
static bool
has_ended(const struct metadata *m, const struct metadata_session *s,
    uint64_t epoch)
{
	if (epoch == 0 || epoch == s->epoch)
		return false;
	return epoch >> 32 == s->epoch >> 32 ||
	    metadata_now(m) >= m->start_ns + lease_ns(m);
}

void
metadata_session_serve(struct metadata_op *op)
{
	const struct msg_session *q = op->req->msg;
	struct metadata *m = op->m;
	struct metadata_session *s = find(m, &q->client);
	struct msg_session_rep rep = { .lease_ms =
	    (uint32_t)m->env.conf->metadata_session };
	struct msg_open_row *gone = NULL;
	int rc = 0;

	if (s == NULL) {		/* ended while this waited */
		metadata_reply(op, ERR_SESSION, NULL);
		return;
	}
	if (q->leaving) {
		rep.epoch = s->epoch;
		end(m, s, true);
		holder_update(m);
		metadata_reply(op, 0, &rep);
		return;
	}
	rep.ended = has_ended(m, s, q->epoch);
	for (uint32_t i = 0; i < q->opens.n; i++) {
		const struct msg_open_row *row = &q->opens.v[i];
		struct inode in;

		rc = fs_inode(m->fs, row->ino, &in);
		/* What is gone already, or going, cannot be held any more. */
		if (rc == -ENOENT || (rc == 0 && in.nlink == 0 &&
		    metadata_gc_removing(m, row->ino))) {
			rc = 0;
			if (gone == NULL && (gone = calloc(q->opens.n,
			    sizeof(*gone))) == NULL)
				rc = -ENOMEM;
			else
				gone[rep.gone.n++] = *row;
		} else if (rc == 0)
			rc = metadata_session_open(m, &q->client, row->ino,
			    row->handle);
		if (rc != 0)
			break;
	}
	if (rc == 0 && q->epoch == s->epoch && !q->more)
		s->told = true;
	rep.epoch = s->epoch;
	rep.gone.v = gone;
	metadata_reply(op, rc, &rep);
	free(gone);
}

/* ---- the handle ---- */

void
metadata_session_init(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;

	map_init(&t->by_client);
	map_init(&t->opens);
	list_init(&t->live);
	list_init(&t->dead);
	list_init(&t->held);
	list_init(&t->ghosts);
}

int
metadata_session_lead(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;
	uint32_t ttl_ms;
	int rc = fs_holder(m->fs, &t->holder, &ttl_ms);

	m->env.random(m->env.ctx, &t->reign, sizeof(t->reign));
	m->env.random(m->env.ctx, &t->made, sizeof(t->made));
	if (rc != 0)
		return rc;
	if (!uid128_zero(&t->holder)) {
		t->grant_to = t->holder;
		t->grant_end_ns = metadata_now(m) + grant_ns(ttl_ms);
	}
	t->scanning = true;
	ghosts_arm(m, metadata_now(m));
	return 0;
}

static void
forget_all(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;
	struct list *n;

	clock_timer_stop(m->clock, &t->timer);
	clock_timer_stop(m->clock, &t->hold_timer);
	clock_timer_stop(m->clock, &t->ghost_timer);
	clock_undefer(m->clock, &t->hold_defer);
	m->leads = false;
	while (!list_empty(&t->live))
		forget(m, list_entry(t->live.next, struct metadata_session, node));
	while (!list_empty(&t->dead))
		forget(m, list_entry(t->dead.next, struct metadata_session, node));
	while ((n = list_pop_front(&t->ghosts)) != NULL)
		ghost_free(m, list_entry(n, struct metadata_ghost, node));
	map_fini(&t->opens);
}

void
metadata_session_depose(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;
	struct list held, *n;

	forget_all(m);
	map_init(&t->opens);
	stat_set(&m->stat.open_files, 0);
	t->scanning = false;
	t->scan_after = (struct uid128){ { 0 } };
	t->grant_to = (struct uid128){ { 0 } };
	t->grant_end_ns = 0;
	list_init(&held);
	list_splice_back(&held, &t->held);
	t->held_n = 0;
	while ((n = list_pop_front(&held)) != NULL)
		metadata_reply(list_entry(n, struct metadata_op, wait),
		    ERR_NOT_LEADER, NULL);
}

void
metadata_session_fini(struct metadata *m)
{
	struct metadata_sessions *t = &m->sessions;

	forget_all(m);
	free(t->dropping);
	map_fini(&t->by_client);
}
