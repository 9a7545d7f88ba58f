/* SPDX-License-Identifier: MIT */
/* test_rdma_iw.c - strangers who call an iWARP port, as anybody on the network can: they are
 * refused, and tokens are good for one call.  Where there is no such device it tests nothing,
 * and says so (tests/vm has one). */
#include "net/rdma_impl.h"

#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/suite.h"

static struct loop *loop;
static struct net_transport *transport;
static struct rdma *r;
static struct rdma_port *port;
static struct log lg;

/* False: no iWARP here. */
static bool
open_rdma(void)
{
	struct net_rdma_conf conf = { .credits = 16 };

	log_init(&lg, "test");
	lg.level = LOG_ERROR;		/* strangers are told of */
	ck_assert_int_eq(loop_open(&loop), 0);
	port = NULL;
	ck_assert_int_eq(net_rdma_open(&transport, loop, &lg, &conf), 0);
	r = container_of(transport, struct rdma, t);
	for (unsigned i = 0; i < r->ports_n && port == NULL; i++)
		if (r->ports[i].link == LINK_IWARP &&
		    net_rdma_is_ipv4(r->ports[i].addrs[0].gid))
			port = &r->ports[i];
	if (port == NULL)
		printf("skipped: no iWARP device\n");
	return port != NULL;
}

static void
close_rdma(void)
{
	transport->ops->close(transport);
	loop_close(loop);
}

/* The next event of @ch, while the loop runs. */
static enum rdma_cm_event_type
next_event(struct rdma_event_channel *ch)
{
	struct rdma_cm_event *e;

	for (unsigned i = 0; i < 200000; i++) {
		loop_turn(loop, false);
		if (rdma_get_cm_event(ch, &e) == 0) {
			enum rdma_cm_event_type what = e->event;

			rdma_ack_cm_event(e);
			return what;
		}
	}
	ck_abort_msg("nothing happened");
	return 0;
}

/* Call with @token, on a queue pair of our own.  How it ended. */
static enum rdma_cm_event_type
call(const uint8_t *token, uint8_t n)
{
	struct rdma_event_channel *ch = rdma_create_event_channel();
	struct sockaddr_in to = { .sin_family = AF_INET,
	    .sin_port = htons(port->addrs[0].listens_at) };
	struct rdma_conn_param param = { .private_data = token, .private_data_len = n };
	struct ibv_qp_init_attr qa = { .qp_type = IBV_QPT_RC,
	    .cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1,
	    .max_recv_sge = 1 } };
	enum rdma_cm_event_type what;
	struct rdma_cm_id *id;

	ck_assert_ptr_nonnull(ch);
	ck_assert_int_eq(fcntl(ch->fd, F_SETFL, O_NONBLOCK), 0);
	memcpy(&to.sin_addr, port->addrs[0].gid + 12, 4);
	ck_assert_int_eq(rdma_create_id(ch, &id, NULL, RDMA_PS_TCP), 0);
	ck_assert_int_eq(rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 5000), 0);
	ck_assert_int_eq(next_event(ch), RDMA_CM_EVENT_ADDR_RESOLVED);
	ck_assert_int_eq(rdma_resolve_route(id, 5000), 0);
	ck_assert_int_eq(next_event(ch), RDMA_CM_EVENT_ROUTE_RESOLVED);
	ck_assert_int_eq(rdma_create_qp(id, NULL, &qa), 0);
	ck_assert_int_eq(rdma_connect(id, &param), 0);
	what = next_event(ch);
	rdma_destroy_qp(id);
	rdma_destroy_id(id);
	rdma_destroy_event_channel(ch);
	return what;
}

START_TEST(strangers)
{
	static const uint8_t any[TOKEN + 4] = { 1, 2, 3 };

	if (open_rdma()) {
		ck_assert_int_eq(call(NULL, 0), RDMA_CM_EVENT_REJECTED);
		ck_assert_int_eq(call(any, 7), RDMA_CM_EVENT_REJECTED);
		ck_assert_int_eq(call(any, sizeof(any)), RDMA_CM_EVENT_REJECTED);
	}
	close_rdma();
}
END_TEST

static unsigned words_n;

static void
said(void *ctx, int rc, const uint8_t *words, uint32_t n)
{
	(void)ctx;
	(void)rc;
	(void)words;
	(void)n;
	words_n++;
}

/* Offer that port to ourselves; the answer has the token. */
static struct net_rdma_setup *
offer(struct rdma_said *answer)
{
	struct net_addr peer = { .kind = NET_ADDR_NONE };
	struct net_rdma_setup *client, *server = NULL;
	uint8_t words[NET_RDMA_WORDS], out[NET_RDMA_WORDS];
	uint32_t n, out_n;

	ck_assert_int_eq(net_rdma_offer(transport, &client, said, NULL, words, &n), 0);
	ck_assert_int_eq(net_rdma_take(transport, &server, said, NULL, &peer, words, n, out,
	    &out_n), 0);
	ck_assert(net_rdma_said_get(out, out_n, answer));
	ck_assert(answer->has_call && answer->has_end);
	net_rdma_abandon(client);
	return server;
}

START_TEST(tokens)
{
	struct net_rdma_setup *server;
	struct rdma_said answer;
	uint8_t wrong[TOKEN];

	if (open_rdma()) {
		server = offer(&answer);
		memcpy(wrong, answer.token, TOKEN);
		wrong[TOKEN - 1] ^= 1;
		ck_assert_int_eq(call(wrong, TOKEN), RDMA_CM_EVENT_REJECTED);
		ck_assert_int_eq(call(answer.token, TOKEN), RDMA_CM_EVENT_ESTABLISHED);
		ck_assert_int_eq(call(answer.token, TOKEN), RDMA_CM_EVENT_REJECTED);
		net_rdma_abandon(server);
		/* Nor is it good when nobody waits any more. */
		server = offer(&answer);
		net_rdma_abandon(server);
		ck_assert_int_eq(call(answer.token, TOKEN), RDMA_CM_EVENT_REJECTED);
		ck_assert_uint_eq(words_n, 0);
		ck_assert_uint_eq(r->tokens.n, 0);
	}
	close_rdma();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, strangers);
	tcase_add_test(t, tokens);
	return suite_run("rdma_iw", t);
}
