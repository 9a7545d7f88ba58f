/* SPDX-License-Identifier: MIT */
/* check_compare.c - do the members of the metadata group hold the same?
 *
 * All of them have an image of their tables right after the same entry of the log
 * (roles/metadata_image.c), so row for row these have to be equal.  The page that was read from
 * one is a range of keys; the others are asked for the digest of that range, and for its rows
 * only when that differs.  Who has what most of all members have is right.  A member that cannot
 * be asked is of neither opinion.
 *
 * As long as it is not known that most members hold what the image says, nothing is repaired by
 * it: such a repair would be made for what one of them has lost. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "conf/err.h"
#include "meta/key.h"
#include "roles/check_impl.h"

#define GROUP_ID	1u
#define WAIT_NS		(30 * NS_PER_S)	/* for a member that cannot be asked */
#define NAMED_MAX	32u		/* rows that are told */

static void name_next(struct check *c);

const char *
check_node_name(const struct check *c, node_id node)
{
	const struct routing_node *n = routing_node(c->routing, node);

	return n == NULL ? "?" : n->name;
}

static struct check_member *
member_of(struct check *c, node_id node)
{
	for (unsigned i = 0; i < c->member_n; i++)
		if (c->members[i].node == node)
			return &c->members[i];
	c->members[c->member_n] = (struct check_member){ .c = c, .node = node };
	return &c->members[c->member_n++];
}

void
check_compare_begin(struct check *c, const struct net_addr *source)
{
	const struct routing_group *g = routing_group(c->routing, GROUP_ID);
	bool found = false;

	c->undecided = false;
	for (unsigned i = 0; i < c->member_n; i++)
		if (g == NULL || routing_group_find(g, c->members[i].node) == g->n) {
			c->member_n = 0;	/* others than before */
			break;
		}
	for (unsigned i = 0; g != NULL && i < g->n; i++) {
		const struct routing_node *n = routing_node(c->routing, g->nodes[i]);
		struct check_member *m = member_of(c, g->nodes[i]);

		m->lost = n == NULL || n->addr_n == 0;
		m->rc = m->lost ? -ENOENT : 0;
		if (!m->lost)
			m->addr = n->addrs[0];
		m->source = !m->lost && net_addr_eq(&m->addr, source);
		m->odd = false;
		m->heard_ns = clock_now(c->env.clock);
		found |= m->source;
	}
	if (!found)
		c->member_n = 0;
}

/* ---- which rows ---- */

static void
describe(const uint8_t *key, size_t n, char *out, size_t cap)
{
	ino_id ino = n >= KEY_INO_LEN ? key_ino_of(key) : 0;
	int name_n = n > KEY_DIRENT_LEN ? (int)(n - KEY_DIRENT_LEN) : 0;

	switch (key[0]) {
	case KEY_INODE:
		snprintf(out, cap, "inode %" PRIu64, ino);
		break;
	case KEY_DIRENT:
		snprintf(out, cap, "entry %.*s of %" PRIu64, name_n,
		    (const char *)key + (name_n > 0 ? KEY_DIRENT_LEN : 0), ino);
		break;
	case KEY_SYMLINK:
		snprintf(out, cap, "target of symlink %" PRIu64, ino);
		break;
	case KEY_GC:
		snprintf(out, cap, "what is to be removed of %" PRIu64, ino);
		break;
	case KEY_ONCE:
		snprintf(out, cap, "the record of a request");
		break;
	default:
		snprintf(out, cap, "the row of key %02x, %zu bytes", key[0], n);
	}
}

static node_id
source_of(const struct check *c)
{
	for (unsigned i = 0; i < c->member_n; i++)
		if (c->members[i].source)
			return c->members[i].node;
	return 0;
}

/* Between @m and the source; @only: who alone has it, 0: both. */
static void
tell_row(struct check *c, const struct check_member *m, const void *key, size_t n,
    node_id only)
{
	char text[400];

	if (c->named++ >= NAMED_MAX)
		return;
	describe(key, n, text, sizeof(text));
	if (only == 0)
		check_note(c, "metadata nodes %u and %u: %s differs", source_of(c), m->node,
		    text);
	else
		check_note(c, "metadata nodes %u and %u: %s is on %u only", source_of(c),
		    m->node, text, only);
}

static int
key_cmp(const void *a, size_t an, const void *b, size_t bn)
{
	int d = memcmp(a, b, an < bn ? an : bn);

	return d != 0 ? d : an < bn ? -1 : an > bn;
}

/* Rows of the tree that the source lacks; the others were not kept (check_image.c). */
static void
tell_extra(struct check *c, const struct check_member *m, const struct msg_image_row *row)
{
	if (row->key.n > 0 && row->key.p[0] != 0 && row->key.p[0] != KEY_ONCE)
		tell_row(c, m, row->key.p, row->key.n, m->node);
}

/* Rows of @m in the range against those of the source. */
static void
name_rows(struct check *c, const struct check_member *m, const struct msg_image_rep *rep)
{
	const struct check_range *r = &c->range;
	uint8_t key[TABLE_KEY_MAX] = { 1 };
	const void *found, *value;
	size_t n = r->after_n, value_n;
	unsigned before = c->named;
	uint32_t i = 0;

	memcpy(key, r->after, r->after_n);
	while (table_seek(c->table, n > 0 ? key : (const void *)"\1", n > 0 ? n : 1, n > 0, 0,
	    &found, &n, &value, &value_n) == 0 && n <= sizeof(key) && (r->until_n == 0 ||
	    key_cmp(found, n, r->until, r->until_n) <= 0)) {
		memcpy(key, found, n);
		for (; i < rep->rows.n && key_cmp(rep->rows.v[i].key.p, rep->rows.v[i].key.n,
		    key, n) < 0; i++)
			tell_extra(c, m, &rep->rows.v[i]);
		if (i == rep->rows.n || key_cmp(rep->rows.v[i].key.p,
		    rep->rows.v[i].key.n, key, n) != 0) {
			if (i == rep->rows.n && rep->more)
				break;		/* it did not fit into the answer */
			tell_row(c, m, key, n, source_of(c));
			continue;
		}
		if (rep->rows.v[i].value.n != value_n ||
		    memcmp(rep->rows.v[i].value.p, value, value_n) != 0)
			tell_row(c, m, key, n, 0);
		i++;
	}
	for (; i < rep->rows.n; i++)
		tell_extra(c, m, &rep->rows.v[i]);
	if (c->named == before && c->named++ < NAMED_MAX)
		check_note(c, "metadata nodes %u and %u: records of requests differ",
		    source_of(c), m->node);
}

static void
have_rows(struct net_call *call, int rc)
{
	struct check_member *m = container_of(call, struct check_member, call);
	struct check *c = m->c;

	if (rc == 0) {
		m->heard_ns = c->heard_ns = clock_now(c->env.clock);
		name_rows(c, m, call->rep);
	}
	c->naming++;			/* else they stay without a name */
	name_next(c);
}

static bool
same(const struct check *c, const struct check_member *m)
{
	return m->source || (m->digest == c->range.digest && m->rows_n == c->range.rows_n &&
	    !m->more);
}

static int
ask_range(struct check *c, struct check_member *m, bool digest, net_call_fn *fn)
{
	const struct check_range *r = &c->range;
	struct msg_image q = { .image = c->image, .digest = digest,
		.after = { (const char *)r->after, r->after_n },
		.until = { (const char *)r->until, r->until_n } };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};

	return net_call_start(&m->call, c->env.hub, &m->addr, MSG_image, &q, &opts, fn);
}

static void
name_next(struct check *c)
{
	for (; c->naming < c->member_n && c->named < NAMED_MAX; c->naming++) {
		struct check_member *m = &c->members[c->naming];

		if (!m->lost && !same(c, m) && ask_range(c, m, false, have_rows) == 0)
			return;
	}
	check_image_next(c);
}

/* ---- who is right ---- */

static bool
agree(const struct check *c, const struct check_member *a, const struct check_member *b)
{
	if (same(c, a) || same(c, b))
		return same(c, a) && same(c, b);
	return a->digest == b->digest && a->rows_n == b->rows_n && a->more == b->more;
}

static void
vote(struct check *c)
{
	const struct check_member *right = NULL;
	bool differ = false;

	for (unsigned i = 0; i < c->member_n; i++) {
		unsigned with = 0;

		if (c->members[i].lost)
			continue;
		differ |= !same(c, &c->members[i]);
		for (unsigned k = 0; k < c->member_n; k++)
			with += !c->members[k].lost &&
			    agree(c, &c->members[i], &c->members[k]);
		if (with * 2 > c->member_n)
			right = &c->members[i];
	}
	c->undecided |= differ && right == NULL;
	for (unsigned i = 0; differ && right != NULL && i < c->member_n; i++)
		c->members[i].odd |= !c->members[i].lost &&
		    !agree(c, &c->members[i], right);
	c->naming = differ ? 0 : c->member_n;
	name_next(c);
}

/* ---- one range ---- */

static void ask_all(struct clock_timer *t);

static void
all_answered(struct check *c)
{
	bool again = false;

	for (unsigned i = 0; i < c->member_n; i++) {
		struct check_member *m = &c->members[i];

		if (m->lost || m->source || m->answered)
			continue;
		if (m->rc == -ESTALE && c->restarts < CHECK_RESTARTS) {
			check_image_again(c, m->rc);
			return;
		}
		if (m->rc == -ESTALE || err_next(m->rc) == ERR_NEXT_FAIL ||
		    clock_now(c->env.clock) - m->heard_ns > WAIT_NS)
			m->lost = true;
		else
			again = true;
	}
	if (!again) {
		vote(c);
		return;
	}
	for (unsigned i = 0; i < c->member_n; i++)	/* lest it takes us for gone */
		if (c->members[i].source)
			c->members[i].answered = false;
	check_later(c, CHECK_PAUSE_NS, ask_all);
}

static void
have_digest(struct net_call *call, int rc)
{
	struct check_member *m = container_of(call, struct check_member, call);
	const struct msg_image_rep *rep = call->rep;
	struct check *c = m->c;

	c->asking--;
	m->rc = rc;
	if (rc == 0) {
		m->heard_ns = c->heard_ns = clock_now(c->env.clock);
		m->answered = true;
		m->digest = rep->digest;
		m->rows_n = rep->rows_n;
		m->more = rep->more != 0;
	}
	if (c->asking == 0)
		all_answered(c);
}

static void
ask_all(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);

	for (unsigned i = 0; i < c->member_n; i++) {
		struct check_member *m = &c->members[i];

		if (m->lost || m->answered)
			continue;
		m->rc = ask_range(c, m, true, have_digest);
		if (m->rc == 0)
			c->asking++;
		else
			m->lost = true;
	}
	if (c->asking == 0)
		all_answered(c);
}

void
check_compare_range(struct check *c)
{
	for (unsigned i = 0; i < c->member_n; i++)
		c->members[i].answered = c->members[i].source;
	check_later(c, 0, ask_all);
}

/* ---- all of them ---- */

static void
tell_odd(struct check *c, struct check_member *m)
{
	void (*say)(struct check *, const char *, ...) = m->told ? check_still : check_fault;

	if (!m->told)
		c->faults++;
	if (m->mended)			/* but not for long */
		c->mended--;
	m->told = true;
	m->mended = false;
	say(c, "metadata node %u (%s) holds other rows than most of its group", m->node,
	    check_node_name(c, m->node));
}

void
check_compare_end(struct check *c)
{
	unsigned right = 0;

	c->distrust = c->undecided;
	for (unsigned i = 0; i < c->member_n; i++) {
		struct check_member *m = &c->members[i];

		if (m->lost)
			check_note(c, "metadata node %u (%s) cannot be compared: %s",
			    m->node, check_node_name(c, m->node), m->rc == -ENOENT ?
			    "its address is not known" : err_text(m->rc));
		else if (m->odd)
			tell_odd(c, m);
		else
			right++;
		c->distrust |= m->odd;
		if (m->told && !m->odd && !m->lost && !m->mended) {
			m->mended = true;
			c->mended++;
		}
	}
	if (c->undecided && !c->undecided_told) {
		c->undecided_told = true;
		c->faults++;
		check_fault(c, "metadata nodes hold different rows, and most of them do not "
		    "agree");
	}
	c->distrust |= right * 2 <= c->member_n && c->member_n > 0;
	check_heal_start(c);
}
