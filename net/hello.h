/* SPDX-License-Identifier: MIT */
/* hello.h - the first words on a connection: both ends prove that they hold the cluster
 * key and agree on a wire version.  Pure: bytes in, bytes out.
 *
 *	client                                    server
 *	hello1: versions, cluster tag, nonce  ->
 *	                 <-  hello2: versions, choice, verdict, nonce, proof
 *	hello3: proof                         ->
 *
 * A proof is BLAKE2b-256 (RFC 7693) keyed by the cluster key, over a label for its
 * direction and everything said before it in both hellos, so both nonces are in it and a
 * proof of one side is never one of the other.  The tag is the cluster's name hashed under
 * the key: it tells a wrong key or cluster from a broken peer, and proves nothing.
 * The client trusts the server after hello2, the server the client after hello3; neither
 * looks at anything else before.  What follows is neither encrypted nor signed. */
#ifndef NET_HELLO_H
#define NET_HELLO_H

#include <stdint.h>

#include "conf/version.h"
#include "net/frame.h"

#define NET_NONCE	32u
#define NET_PROOF	32u
#define NET_TAG		16u

/* Bodies, behind a frame head.
 *   hello1  u16 min  u16 max  u32 zero  tag[16]  nonce[32]
 *   hello2  u16 min  u16 max  u16 version  u16 verdict  nonce[32]  proof[32]
 *   hello3  proof[32] */
#define NET_HELLO1	(NET_HEAD + 8u + NET_TAG + NET_NONCE)
#define NET_HELLO2	(NET_HEAD + 8u + NET_NONCE + NET_PROOF)
#define NET_HELLO3	(NET_HEAD + NET_PROOF)
#define NET_HELLO_MAX	NET_HELLO2

#define NET_WIRE_MIN	(FSD_WIRE > 1 ? FSD_WIRE - 1 : 1u)

struct net_hello {
	const uint8_t *key;		/* borrowed */
	uint8_t	  tag[NET_TAG];
	uint16_t  min, max;		/* wire versions we speak */
	uint16_t  version;		/* agreed; 0 before */
	uint8_t	  next;			/* frame kind that may come now; 0: none */
	int	  refused;		/* server: why hello2 said no */
	uint8_t	  one[NET_HELLO1 - NET_HEAD];
	uint8_t	  two[NET_HELLO2 - NET_HEAD];
};

/* The tag of @cluster (NULL: "") under @key. */
void	net_hello_tag(const uint8_t key[NET_KEY_BYTES], const char *cluster,
	    uint8_t tag[NET_TAG]);

/* Client: write hello1.  Then take hello2 and write hello3. */
void	net_hello_ask(struct net_hello *h, const uint8_t *key,
	    const uint8_t tag[NET_TAG], uint16_t min, uint16_t max,
	    const uint8_t nonce[NET_NONCE], uint8_t out[NET_HELLO1]);
/* Server: wait for hello1. */
void	net_hello_await(struct net_hello *h, const uint8_t *key,
	    const uint8_t tag[NET_TAG], uint16_t min, uint16_t max);

/* Take a frame of @n bytes that net_frame_decode() found good.  The answer goes to
 * @out, *@out_len bytes, 0: none. @nonce: a fresh one, used by a server's hello2.
 * Returns 1 when the hello is complete (send @out first), 0 when more must come,
 *   ERR_BAD_MESSAGE   not the frame that was due: close
 *   ERR_AUTH          peer has no key of ours, or is of another cluster: close
 *   ERR_WIRE_VERSION  no version both speak: close
 * A server that answers hello2 with a refusal returns 0 and sets h->refused: send, and
 * wait for the peer to close. */
int	net_hello_take(struct net_hello *h, const uint8_t *frame, uint32_t n,
	    const uint8_t nonce[NET_NONCE], uint8_t out[NET_HELLO_MAX],
	    uint32_t *out_len);

#endif
