/* SPDX-License-Identifier: MIT */
/* hello.c - mutual proof of the cluster key, and the wire version. */
#include "net/hello.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"

enum verdict { VERDICT_OK, VERDICT_VERSION, VERDICT_CLUSTER };

#define TWO_SAID	(NET_HELLO2 - NET_HEAD - NET_PROOF)

/* Labels are of one length, and everything behind them is too. */
static const char label_server[8] = "fsd-srv1", label_client[8] = "fsd-cli1",
    label_tag[8] = "fsd-tag1";

void
net_hello_tag(const uint8_t key[NET_KEY_BYTES], const char *cluster,
    uint8_t tag[NET_TAG])
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, key, NET_KEY_BYTES, NET_TAG);
	crypto_generichash_update(&st, (const uint8_t *)label_tag, 8);
	if (cluster != NULL)
		crypto_generichash_update(&st, (const uint8_t *)cluster,
		    strlen(cluster));
	crypto_generichash_final(&st, tag, NET_TAG);
}

/* Over hello1 and the first @two_n bytes of hello2. */
static void
prove(const struct net_hello *h, const char *label, size_t two_n, uint8_t *out)
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, h->key, NET_KEY_BYTES, NET_PROOF);
	crypto_generichash_update(&st, (const uint8_t *)label, 8);
	crypto_generichash_update(&st, h->one, sizeof(h->one));
	crypto_generichash_update(&st, h->two, two_n);
	crypto_generichash_final(&st, out, NET_PROOF);
}

static void
seal(uint8_t kind, uint32_t frame_len, uint8_t *out)
{
	struct net_frame f = { .msg_len = frame_len - NET_HEAD, .kind = kind };

	net_frame_encode(&f, out);
}

static void
start(struct net_hello *h, const uint8_t *key, const uint8_t *tag, uint16_t min,
    uint16_t max, uint8_t next)
{
	assert(min > 0 && min <= max);
	*h = (struct net_hello){ .key = key, .min = min, .max = max, .next = next };
	memcpy(h->tag, tag, NET_TAG);
}

void
net_hello_ask(struct net_hello *h, const uint8_t *key,
    const uint8_t tag[NET_TAG], uint16_t min, uint16_t max,
    const uint8_t nonce[NET_NONCE], uint8_t out[NET_HELLO1])
{
	struct bytes_writer w;

	start(h, key, tag, min, max, NET_FRAME_HELLO2);
	bytes_writer_init(&w, h->one, sizeof(h->one));
	bytes_put_u16(&w, min);
	bytes_put_u16(&w, max);
	bytes_put_u32(&w, 0);
	bytes_put_raw(&w, tag, NET_TAG);
	bytes_put_raw(&w, nonce, NET_NONCE);
	assert(bytes_written(&w) == sizeof(h->one) && !w.failed);
	memcpy(out + NET_HEAD, h->one, sizeof(h->one));
	seal(NET_FRAME_HELLO1, NET_HELLO1, out);
}

void
net_hello_await(struct net_hello *h, const uint8_t *key,
    const uint8_t tag[NET_TAG], uint16_t min, uint16_t max)
{
	start(h, key, tag, min, max, NET_FRAME_HELLO1);
}

/* The highest version both speak; 0: none. */
static uint16_t
choose(const struct net_hello *h, uint16_t min, uint16_t max)
{
	uint16_t v = max < h->max ? max : h->max;

	return v >= min && v >= h->min ? v : 0;
}

static int
take_one(struct net_hello *h, const uint8_t *body, const uint8_t *nonce,
    uint8_t *out, uint32_t *out_len)
{
	enum verdict verdict = VERDICT_OK;
	struct bytes_reader r;
	struct bytes_writer w;
	uint16_t min, max;

	memcpy(h->one, body, sizeof(h->one));
	bytes_reader_init(&r, body, sizeof(h->one));
	min = bytes_get_u16(&r);
	max = bytes_get_u16(&r);
	bytes_get_u32(&r);
	if (min == 0 || min > max)
		return ERR_BAD_MESSAGE;
	if (sodium_memcmp(bytes_get_raw(&r, NET_TAG), h->tag, NET_TAG) != 0) {
		verdict = VERDICT_CLUSTER;
		h->refused = ERR_AUTH;
	} else if ((h->version = choose(h, min, max)) == 0) {
		verdict = VERDICT_VERSION;
		h->refused = ERR_WIRE_VERSION;
	}
	bytes_writer_init(&w, h->two, sizeof(h->two));
	bytes_put_u16(&w, h->min);
	bytes_put_u16(&w, h->max);
	bytes_put_u16(&w, h->version);
	bytes_put_u16(&w, (uint16_t)verdict);
	bytes_put_raw(&w, nonce, NET_NONCE);
	assert(bytes_written(&w) == TWO_SAID && !w.failed);
	prove(h, label_server, TWO_SAID, h->two + TWO_SAID);
	memcpy(out + NET_HEAD, h->two, sizeof(h->two));
	seal(NET_FRAME_HELLO2, NET_HELLO2, out);
	*out_len = NET_HELLO2;
	h->next = h->refused == 0 ? NET_FRAME_HELLO3 : 0;
	return 0;
}

static int
take_two(struct net_hello *h, const uint8_t *body, uint8_t *out, uint32_t *out_len)
{
	struct bytes_reader r;
	uint8_t proof[NET_PROOF];
	uint16_t min, max, version, verdict;

	memcpy(h->two, body, sizeof(h->two));
	prove(h, label_server, TWO_SAID, proof);
	if (sodium_memcmp(proof, body + TWO_SAID, NET_PROOF) != 0)
		return ERR_AUTH;
	bytes_reader_init(&r, body, TWO_SAID);
	min = bytes_get_u16(&r);
	max = bytes_get_u16(&r);
	version = bytes_get_u16(&r);
	verdict = bytes_get_u16(&r);
	if (verdict == VERDICT_CLUSTER)
		return ERR_AUTH;
	if (verdict != VERDICT_OK || version == 0 ||
	    choose(h, min, max) != version)
		return ERR_WIRE_VERSION;
	prove(h, label_client, sizeof(h->two), out + NET_HEAD);
	seal(NET_FRAME_HELLO3, NET_HELLO3, out);
	*out_len = NET_HELLO3;
	h->version = version;
	h->next = 0;
	return 1;
}

static int
take_three(struct net_hello *h, const uint8_t *body)
{
	uint8_t proof[NET_PROOF];

	prove(h, label_client, sizeof(h->two), proof);
	h->next = 0;
	if (sodium_memcmp(proof, body, NET_PROOF) != 0)
		return ERR_AUTH;
	return 1;
}

int
net_hello_take(struct net_hello *h, const uint8_t *frame, uint32_t n,
    const uint8_t nonce[NET_NONCE], uint8_t out[NET_HELLO_MAX],
    uint32_t *out_len)
{
	uint8_t kind = frame[26];

	*out_len = 0;
	if (kind == 0 || kind != h->next)
		return ERR_BAD_MESSAGE;
	if (kind == NET_FRAME_HELLO1 && n == NET_HELLO1)
		return take_one(h, frame + NET_HEAD, nonce, out, out_len);
	if (kind == NET_FRAME_HELLO2 && n == NET_HELLO2)
		return take_two(h, frame + NET_HEAD, out, out_len);
	if (kind == NET_FRAME_HELLO3 && n == NET_HELLO3)
		return take_three(h, frame + NET_HEAD);
	return ERR_BAD_MESSAGE;
}
