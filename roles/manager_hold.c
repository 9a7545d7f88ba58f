/* SPDX-License-Identifier: MIT */
/* manager_hold.c - replicas that could not be brought up to date: why, how often in a row,
 * and whether they are kept from being tried again for now.  Part of apply.
 *
 * All that waits for such a replica are the writes of its chain, so it goes OFFLINE and is
 * held there.  The leader ends the hold after a pause that grows with the tries; that is a
 * command like any other, as chains follow from the rows and from nothing else. */
#include "roles/manager_state.h"

#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"

#define TRIES_MAX	255u

struct manager_hold *
manager_hold_get(const struct manager_state *s, target_id id)
{
	return map_get(&s->holds, id);
}

bool
manager_held(const struct manager_state *s, target_id id)
{
	const struct manager_hold *h = map_get(&s->holds, id);

	return h != NULL && h->held;
}

int
manager_hold_keep(struct manager_state *s, const struct manager_hold *row)
{
	struct manager_hold *h = map_get(&s->holds, row->target);
	int rc;

	if (h == NULL) {
		if ((h = calloc(1, sizeof(*h))) == NULL)
			return -ENOMEM;
		if ((rc = map_put(&s->holds, row->target, h)) != 0) {
			free(h);
			return rc;
		}
		list_init(&h->node);
		list_push_back(&s->hold_list, &h->node);
	}
	h->target = row->target;
	h->rc = row->rc;
	h->tries = row->tries;
	h->held = row->held;
	h->until_ns = 0;
	return 0;
}

static void
forget(struct manager_state *s, struct manager_hold *h)
{
	(void)map_del(&s->holds, h->target);
	list_remove(&h->node);
	free(h);
}

static void
hold_key(uint8_t key[5], target_id id)
{
	key[0] = 'U';
	bytes_be32(key + 1, id);
}

static void
put(struct manager_state *s, const struct manager_hold *row)
{
	uint8_t buf[16], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u32(&w, (uint32_t)row->rc);
	bytes_put_u8(&w, row->tries);
	bytes_put_u8(&w, row->held);
	hold_key(key, row->target);
	s->rc = table_put(s->table, key, sizeof(key), buf, bytes_written(&w));
	s->dirty = true;
	if (s->rc == 0)
		s->rc = manager_hold_keep(s, row);
}

void
manager_hold_drop(struct manager_state *s, target_id id)
{
	struct manager_hold *h = map_get(&s->holds, id);
	uint8_t key[5];

	if (h == NULL || s->rc != 0)
		return;
	hold_key(key, id);
	s->rc = table_del(s->table, key, sizeof(key));
	s->dirty = true;
	forget(s, h);
}

void
manager_holds_close(struct manager_state *s)
{
	size_t it = 0;
	struct manager_hold *h;

	while ((h = map_next(&s->holds, &it, NULL)) != NULL)
		free(h);
	map_fini(&s->holds);
}

void
manager_hold(struct manager_state *s, target_id id, int rc)
{
	const struct manager_hold *h = map_get(&s->holds, id);
	struct manager_hold row = { .target = id, .rc = rc, .tries = 1, .held = true };

	if (h != NULL)
		row.tries = (uint8_t)(h->tries + (h->tries < TRIES_MAX));
	put(s, &row);
}

int
manager_apply_release(struct manager_state *s, struct bytes_reader *r)
{
	target_id id = bytes_get_u32(r);
	uint8_t tries = bytes_get_u8(r);
	const struct manager_hold *h = map_get(&s->holds, id);
	const struct routing_target *t = routing_target(s->routing, id);
	struct manager_hold row;

	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (h == NULL || !h->held || h->tries != tries)
		return -EALREADY;
	row = *h;
	row.held = false;
	put(s, &row);
	if (s->rc == 0 && t != NULL && t->chain != 0)
		(void)manager_heal_chain(s, t->chain, MANAGER_CHAIN_LOOK, 0, 0);
	return 0;
}
