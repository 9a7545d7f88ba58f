/* SPDX-License-Identifier: MIT */
/* test_admin_pieces.c - long answers in pieces: what goes on is put together, and a manager
 * that goes back, between pieces or within one, is not asked again. */
#include <string.h>

#include "conf/err.h"
#include "roles/admin_pieces.h"
#include "tests/suite.h"

enum kind { NODES, SYNCS, CLIENTS, KINDS };

/* Places in the order of what the kind is sorted by; each piece ends with a 0. */
static const struct {
	const char *what;
	unsigned    pieces;
	uint32_t    rows[3][4];
	int	    rc;			/* of the last piece */
} cases[] = {
	{ "one piece", 1, { { 1, 2, 3 } }, 0 },
	{ "nothing", 1, { { 0 } }, 0 },
	{ "two pieces", 2, { { 1, 2 }, { 3, 9 } }, 0 },
	{ "three, with gaps", 3, { { 3 }, { 256, 257 }, { 65536 } }, 0 },
	{ "the same piece again", 2, { { 1, 2 }, { 1, 2 } }, ERR_BAD_MESSAGE },
	{ "its last row again", 2, { { 1, 2 }, { 2, 3 } }, ERR_BAD_MESSAGE },
	{ "back within the first piece", 1, { { 2, 1 } }, ERR_BAD_MESSAGE },
	{ "twice within a piece", 1, { { 2, 2 } }, ERR_BAD_MESSAGE },
	{ "forward, then back to where it began", 2, { { 1, 2 }, { 3, 1 } },
	    ERR_BAD_MESSAGE },
	{ "back in the middle of a piece", 2, { { 1, 2 }, { 7, 3, 8 } }, ERR_BAD_MESSAGE },
	{ "nothing, and yet more to come", 2, { { 1, 2 }, { 0 } }, ERR_BAD_MESSAGE },
};

static int
add(struct admin_pieces *p, enum kind kind, const uint32_t *row, bool more,
    const void **kept)
{
	struct msg_node_status nodes[4] = { 0 };
	struct msg_sync_status syncs[4] = { 0 };
	struct msg_client_row clients[4] = { 0 };
	struct msg_status_rep status = { .nodes.v = nodes, .syncs.v = syncs };
	struct msg_clients_rep rep = { .clients.v = clients };
	uint32_t n = 0;

	for (; n < 4 && row[n] != 0; n++) {
		nodes[n].node = row[n];
		syncs[n].chain = row[n] >> 8;
		syncs[n].target = row[n] & 0xff;
		for (unsigned i = 0; i < 4; i++)
			clients[n].client.b[i] = (uint8_t)(row[n] >> (24 - 8 * i));
	}
	if (kind == CLIENTS) {
		rep.clients.n = n;
		rep.left = more;
		return admin_pieces_add(p, &msg_type_clients_rep, &rep, kept);
	}
	if (kind == NODES) {
		status.nodes.n = n;
		status.nodes_left = more;
	} else {
		status.syncs.n = n;
		status.syncs_left = more;
	}
	return admin_pieces_add(p, &msg_type_status_rep, &status, kept);
}

START_TEST(goes_on)
{
	const unsigned c = (unsigned)_i / KINDS, pieces = cases[c].pieces;
	const enum kind kind = (enum kind)((unsigned)_i % KINDS);
	struct admin_pieces p;
	const void *kept = NULL;
	uint32_t rows = 0, got;

	admin_pieces_init(&p);
	for (unsigned i = 0; i < pieces; i++) {
		bool last = i == pieces - 1, bad = last && cases[c].rc != 0;
		int rc = add(&p, kind, cases[c].rows[i], !last || bad, &kept);

		ck_assert_msg(rc == (last ? cases[c].rc : 1), "%s, kind %u, piece %u: %d",
		    cases[c].what, kind, i, rc);
		for (unsigned k = 0; k < 4 && cases[c].rows[i][k] != 0; k++)
			rows++;
	}
	if (cases[c].rc == 0) {
		got = kind == CLIENTS ? ((const struct msg_clients_rep *)kept)->clients.n :
		    kind == NODES ? ((const struct msg_status_rep *)kept)->nodes.n :
		    ((const struct msg_status_rep *)kept)->syncs.n;
		ck_assert_uint_eq(got, rows);
	}
	admin_pieces_fini(&p);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("pieces");

	tcase_add_loop_test(tc, goes_on, 0,
	    KINDS * (int)(sizeof(cases) / sizeof(cases[0])));
	return suite_run("admin_pieces", tc);
}
